"""Tests the fallback between writers, and that two writers never write one text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from generation.backends.model_settings import TokenPrice
from generation.protocols.chat_model import ChatError, ChatFailure
from generation.protocols.writer import AnswerPiece, WriterEnd
from generation.writers.extractive import EXTRACTIVE
from generation.writers.routing import LARGE, SMALL, Route
from generation.writers.writer_chain import Citer, WriterChain
from nearline import contract as c
from tests.generation.scripted_writers import END, TEXTS, Scripted, evidence, said, span, task

FIRST = said("It takes three minutes.", span(0, 0))
SECOND = said(" Then it is done.", span(0, 1))
VERBATIM = said("The lamp takes two batteries.", span(1, 0))


def answering(
    *writers: Scripted, timeout_s: float | None = None, hidden: Sequence[str] = ()
) -> WriterChain:
    citer = Citer(evidence(), "s1", lambda hit: hit.id not in hidden)
    rungs = tuple(writer.name for writer in writers)
    prices = {LARGE: TokenPrice(10_000, 100_000)}
    return WriterChain({w.name: w for w in writers}, Route(rungs), task(timeout_s), citer, prices)


async def text_of(one: WriterChain) -> str:
    return "".join([e.text async for e in one.events() if isinstance(e, c.Delta)])


def extractive() -> Scripted:
    return Scripted(EXTRACTIVE, VERBATIM, WriterEnd(False, 0, 5))


async def test_the_first_successful_writer_answers_alone() -> None:
    unasked = extractive()
    one = answering(Scripted(LARGE, FIRST, SECOND, END), unasked)
    assert await text_of(one) == "It takes three minutes. [1] Then it is done. [2]"
    assert not unasked.tasks
    outcome = one.outcome
    assert (outcome.backend, outcome.finish, outcome.whole) == (LARGE, c.Finish.COMPLETE, True)
    assert (outcome.prompt_tokens, outcome.completion_tokens, outcome.citations) == (100, 20, 2)
    assert outcome.cost == pytest.approx(100 * 0.01 + 20 * 0.1)


@pytest.mark.parametrize("failure", list(ChatFailure))
async def test_a_failure_before_the_first_word_falls_back_to_the_next_rung(
    failure: ChatFailure,
) -> None:
    large = Scripted(LARGE, ChatError(failure, "no"))
    small = Scripted(SMALL, FIRST, END)
    one = answering(large, small, extractive())
    text = await text_of(one)
    model_next = failure not in (ChatFailure.DEADLINE, ChatFailure.REFUSED_REQUEST)
    assert text.startswith("It takes" if model_next else "The lamp takes")
    assert bool(small.tasks) is model_next
    assert one.outcome.reason == f"large: {failure.value} (no)"
    assert [a.failure for a in one.outcome.attempts] == ["no", ""]
    assert large.closed


@pytest.mark.parametrize("failure", [ChatFailure.STALLED, ChatFailure.CUT, ChatFailure.DEADLINE])
async def test_a_failure_after_the_first_word_ends_the_answer_with_a_reason(
    failure: ChatFailure,
) -> None:
    last = extractive()
    one = answering(Scripted(LARGE, FIRST, ChatError(failure, "gone")), last)
    assert await text_of(one) == "It takes three minutes. [1]"
    assert not last.tasks
    late = failure is ChatFailure.DEADLINE
    assert one.outcome.finish is (c.Finish.DEADLINE if late else c.Finish.INTERRUPTED)
    assert one.outcome.backend == LARGE and "gone" in one.outcome.reason


async def test_usage_of_a_failed_attempt_is_counted() -> None:
    error = ChatError(ChatFailure.CUT, "cut")
    error.prompt_tokens, error.completion_tokens = 70, 7
    one = answering(Scripted(LARGE, error), Scripted(SMALL, FIRST, END), extractive())
    await text_of(one)
    assert (one.outcome.prompt_tokens, one.outcome.completion_tokens) == (170, 27)
    assert one.outcome.cost == pytest.approx(70 * 0.01 + 7 * 0.1)


async def test_a_model_without_supported_sentences_fails_its_rung() -> None:
    one = answering(Scripted(LARGE, WriterEnd(False, 100, 20, dropped_sentences=3)), extractive())
    assert await text_of(one) == "The lamp takes two batteries. [1]"
    assert "nothing that it wrote is supported" in one.outcome.reason
    assert one.outcome.dropped_sentences == 3
    assert one.outcome.prompt_tokens == 100


async def test_a_model_that_hangs_leaves_time_to_answer_from_the_evidence() -> None:
    never = asyncio.Event()
    slow = Scripted(LARGE, never)
    one = answering(slow, extractive(), timeout_s=0.3)
    async with asyncio.timeout(5):
        assert await text_of(one) == "The lamp takes two batteries. [1]"
    assert slow.closed and "deadline" in one.outcome.reason


async def test_a_deadline_in_mid_answer_ends_it() -> None:
    one = answering(Scripted(LARGE, FIRST, asyncio.Event()), extractive(), timeout_s=0.3)
    async with asyncio.timeout(5):
        assert await text_of(one) == "It takes three minutes. [1]"
    assert one.outcome.finish is c.Finish.DEADLINE


async def test_a_deadline_before_any_word_ends_the_answer() -> None:
    one = answering(Scripted(EXTRACTIVE, asyncio.Event()), timeout_s=0.01)
    async with asyncio.timeout(5):
        assert await text_of(one) == ""
    assert one.outcome.finish is c.Finish.DEADLINE


async def test_a_caller_that_leaves_stops_the_writer() -> None:
    writer = Scripted(LARGE, FIRST, asyncio.Event())
    events = answering(writer, extractive()).events()
    assert isinstance(await anext(events), c.Delta)
    await events.aclose()
    assert writer.closed


async def test_sentences_that_may_not_be_cited_are_omitted() -> None:
    both = Scripted(EXTRACTIVE, FIRST, said(" Two batteries.", span(1, 0)), END)
    one = answering(both, hidden=["kettle"])
    assert await text_of(one) == "Two batteries. [1]"
    assert one.outcome.dropped_sentences == 1


async def test_the_length_flag_of_a_failed_writer_is_not_carried_over() -> None:
    one = answering(Scripted(LARGE, WriterEnd(True, 100, 20, dropped_sentences=1)), extractive())
    assert await text_of(one) == "The lamp takes two batteries. [1]"
    assert one.outcome.finish is c.Finish.COMPLETE


async def test_the_length_flag_is_reported() -> None:
    one = answering(Scripted(LARGE, FIRST, WriterEnd(True, 1, 1)), extractive())
    await text_of(one)
    assert one.outcome.finish is c.Finish.LENGTH


def test_a_span_cited_twice_keeps_its_number() -> None:
    citer = Citer(evidence(), "s1", lambda hit: True)
    pieces = [
        said("A.", span(0, 0), span(1, 0, 1)),
        said(" B.", span(1, 0, 1)),
        said(" C.", span(0, 1), span(0, 1), problems=["a number"]),
    ]
    events = [event for piece in pieces for event in citer.events(piece)]
    deltas = [event for event in events if isinstance(event, c.Delta)]
    assert "".join(delta.text for delta in deltas) == "A. [1][2] B. [2] C. [3]"
    assert [delta.unsupported for delta in deltas] == [False, False, True]
    cited = [event for event in events if isinstance(event, c.Citation)]
    assert [(one.number, one.document_id, one.start, one.end) for one in cited] == [
        (1, "kettle", 0, 36),
        (2, "lamp", 0, len(TEXTS["lamp"])),
        (3, "kettle", 37, len(TEXTS["kettle"])),
    ]


def test_words_without_a_source_carry_no_marker() -> None:
    citer = Citer(evidence(), "s1", lambda hit: True)
    assert citer.events(AnswerPiece("In short:", [], [])) == [c.Delta("In short:")]
