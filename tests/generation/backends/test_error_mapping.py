"""Tests the mapping of error replies."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given, strategies as st

from generation.backends.openai_chat import map_error, parse_retry_after
from generation.protocols.chat_model import ChatFailure


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (401, {"message": "Incorrect API key provided: sk-ab*"}, ChatFailure.UNAUTHORISED),
        (403, {"message": "Country not supported"}, ChatFailure.UNAUTHORISED),
        (402, {"message": "Payment Required"}, ChatFailure.QUOTA),
        (429, {"message": "slow down", "code": "insufficient_quota"}, ChatFailure.QUOTA),
        (429, {"message": "You exceeded your current quota, check your plan"}, ChatFailure.QUOTA),
        (400, {"message": "You have reached your specified API usage limits"}, ChatFailure.QUOTA),
        (400, {"message": "Your credit balance is too low"}, ChatFailure.QUOTA),
        (
            429,
            {"message": "Rate limit reached", "code": "rate_limit_exceeded"},
            ChatFailure.RATE_LIMITED,
        ),
        (400, {"message": "too long", "code": "context_length_exceeded"}, ChatFailure.TOO_LONG),
        # vLLM; llama-cpp-python; llama.cpp's own server.
        (
            400,
            {"message": "This model's maximum context length is 2048 tokens", "code": 400},
            ChatFailure.TOO_LONG,
        ),
        (
            400,
            {"message": "Requested tokens (3001) exceed context window of 2048"},
            ChatFailure.TOO_LONG,
        ),
        (400, {"message": "no", "type": "exceed_context_size_error"}, ChatFailure.TOO_LONG),
        (413, "", ChatFailure.TOO_LONG),
        (400, {"message": "temperature must be 0..2"}, ChatFailure.REFUSED_REQUEST),
        (404, {"message": "The model `m` does not exist"}, ChatFailure.REFUSED_REQUEST),
        (
            422,
            {"detail": [{"loc": ["body"], "msg": "field required"}]},
            ChatFailure.REFUSED_REQUEST,
        ),
        (408, None, ChatFailure.SERVER),
        (500, "<html>Internal Server Error</html>", ChatFailure.SERVER),
        (503, {"message": "Loading model", "type": "unavailable_error"}, ChatFailure.SERVER),
        (529, {"type": "overloaded_error"}, ChatFailure.SERVER),
    ],
)
def test_classes(status: int, body: object, failure: ChatFailure) -> None:
    assert map_error(status, body, {}).failure is failure


def test_only_a_one_word_code_of_the_reply_is_passed_on() -> None:
    body = {"message": "the user asked about Eve", "type": "a b", "code": "rate_limit_exceeded"}
    assert map_error(429, body, {}).message == "HTTP 429 (rate_limit_exceeded)"
    assert map_error(429, {"code": "/models/eve.gguf", "type": 5}, {}).message == "HTTP 429"
    assert map_error(429, {"code": "sk-abc-123"}, {}).message == "HTTP 429"


def test_retry_after_in_each_form() -> None:
    assert parse_retry_after({}) is None
    assert parse_retry_after({"retry-after": "7"}) == 7.0
    assert parse_retry_after({"retry-after": "-7"}) == 0.0
    assert parse_retry_after({"retry-after": "1e99"}) == 86_400.0
    assert parse_retry_after({"retry-after": "nan"}) is None
    assert parse_retry_after({"retry-after": "soon"}) is None
    assert parse_retry_after({"retry-after": "7", "retry-after-ms": "250"}) == 0.25
    past = email.utils.formatdate(time.time() - 60, usegmt=True)
    assert parse_retry_after({"retry-after": past}) == 0.0
    ahead = email.utils.formatdate(time.time() + 60, usegmt=True)
    seconds = parse_retry_after({"retry-after": ahead})
    assert seconds is not None and 50 < seconds <= 60


@given(value=st.text(max_size=40))
def test_any_retry_after_header_is_handled(value: str) -> None:
    seconds = parse_retry_after({"retry-after": value})
    assert seconds is None or 0 <= seconds <= 86_400
