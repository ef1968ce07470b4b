"""Tests the times of a question: those that are reported, and the rest of its limit."""

from __future__ import annotations

import time

from generation.request_context import _KEPT_S, RequestContext
from generation.writers.writer_chain import AnswerOutcome
from nearline.access.caller import Caller
from nearline.contract import DEFAULT_COLLECTION, Coverage, Delta, Question, ReplyInfo


def _begun(ago_s: float, timeout_s: float | None = None) -> RequestContext:
    return RequestContext(
        Question(text="why?"),
        DEFAULT_COLLECTION,
        Caller(),
        timeout_s,
        _start=time.monotonic() - ago_s,
    )


def test_times_are_reported_from_the_start_of_the_question() -> None:
    call = _begun(10.0)
    assert call.snapshot_id == ""
    coverage = Coverage(shards_answered=1, shards_total=1)
    call.found(ReplyInfo(epoch=1, snapshot_id="s", fingerprint="f", coverage=coverage))
    call.sends(Delta(text="Because"), "extractive")
    first = call.usage(AnswerOutcome()).first_delta_s
    call.sends(Delta(text=" so."), "extractive")
    usage = call.usage(AnswerOutcome())
    assert 10.0 <= usage.retrieval_s <= usage.first_delta_s == first <= usage.total_s < 15.0
    assert call.snapshot_id == "s"


def test_an_answer_must_end_a_little_before_the_limit() -> None:
    left_s = _begun(10.0, 30.0).left_s()
    assert left_s is not None and 15.0 < left_s <= 20.0 - _KEPT_S
    assert _begun(10.0, 10.0).left_s() == _begun(10.0, 5.0).left_s() == 0.0
    assert _begun(10.0).left_s() is None
