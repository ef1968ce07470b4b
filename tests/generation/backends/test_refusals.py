"""What error replies mean."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.backends.error_mapping import error_of, retry_after_s
from generation.protocols.chat_model import Failure


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (401, {"message": "Incorrect API key provided: sk-ab*"}, Failure.UNAUTHORISED),
        (403, {"message": "Country not supported"}, Failure.UNAUTHORISED),
        (402, {"message": "Payment Required"}, Failure.QUOTA),
        (429, {"message": "slow down", "code": "insufficient_quota"}, Failure.QUOTA),
        (429, {"message": "You exceeded your current quota, check your plan"}, Failure.QUOTA),
        (400, {"message": "You have reached your specified API usage limits"}, Failure.QUOTA),
        (400, {"message": "Your credit balance is too low"}, Failure.QUOTA),
        (
            429,
            {"message": "Rate limit reached", "code": "rate_limit_exceeded"},
            Failure.RATE_LIMITED,
        ),
        (400, {"message": "too long", "code": "context_length_exceeded"}, Failure.TOO_LONG),
        # vLLM; llama-cpp-python; llama.cpp's own server.
        (
            400,
            {"message": "This model's maximum context length is 2048 tokens", "code": 400},
            Failure.TOO_LONG,
        ),
        (
            400,
            {"message": "Requested tokens (3001) exceed context window of 2048"},
            Failure.TOO_LONG,
        ),
        (400, {"message": "no", "type": "exceed_context_size_error"}, Failure.TOO_LONG),
        (413, "", Failure.TOO_LONG),
        (400, {"message": "temperature must be 0..2"}, Failure.REFUSED_REQUEST),
        (404, {"message": "The model `m` does not exist"}, Failure.REFUSED_REQUEST),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, Failure.REFUSED_REQUEST),
        (408, None, Failure.SERVER),
        (500, "<html>Internal Server Error</html>", Failure.SERVER),
        (503, {"message": "Loading model", "type": "unavailable_error"}, Failure.SERVER),
        (529, {"type": "overloaded_error"}, Failure.SERVER),
    ],
)
def test_classes(status: int, body: object, failure: Failure) -> None:
    assert error_of(status, body, {}).failure is failure


def test_of_the_texts_only_a_word_goes_on() -> None:
    body = {"message": "the user asked about Eve", "type": "a b", "code": "rate_limit_exceeded"}
    assert error_of(429, body, {}).message == "HTTP 429 (rate_limit_exceeded)"
    assert error_of(429, {"code": "/models/eve.gguf", "type": 5}, {}).message == "HTTP 429"
    assert error_of(429, {"code": "sk-abc-123"}, {}).message == "HTTP 429"


def test_retry_after_in_each_form() -> None:
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "7"}) == 7.0
    assert retry_after_s({"retry-after": "-7"}) == 0.0
    assert retry_after_s({"retry-after": "1e99"}) == 86_400.0
    assert retry_after_s({"retry-after": "nan"}) is None
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "7", "retry-after-ms": "250"}) == 0.25
    past = email.utils.formatdate(time.time() - 60, usegmt=True)
    assert retry_after_s({"retry-after": past}) == 0.0
    ahead = email.utils.formatdate(time.time() + 60, usegmt=True)
    seconds = retry_after_s({"retry-after": ahead})
    assert seconds is not None and 50 < seconds <= 60


@given(value=st.text(max_size=40))
def test_no_header_breaks_it(value: str) -> None:
    seconds = retry_after_s({"retry-after": value})
    assert seconds is None or 0 <= seconds <= 86_400
