"""Tests the choice of writers by question, evidence, remaining time and earlier failures."""

from __future__ import annotations

import contextvars

import pytest

from generation.protocols.chat_model import ChatFailure
from generation.writers.extractive import EXTRACTIVE
from generation.writers.question_kinds import AnswerKind
from generation.writers.routing import (
    LARGE,
    NEXT_STEP,
    SMALL,
    ModelRouter,
    QueryClass,
    Route,
    remaining_rungs,
)
from nearline.admission import note_overload

ALL = (EXTRACTIVE, SMALL, LARGE)
HOW_TO = AnswerKind.INSTRUCTION
FACT = QueryClass(AnswerKind.FACT, True, True)


def test_evidence_strength_follows_the_numbers() -> None:
    assert QueryClass.of(HOW_TO, 0.7, [1.0]) == (HOW_TO, True, True)
    assert QueryClass.of(HOW_TO, 0.69, [1.0, 0.79]) == (HOW_TO, False, True)
    assert QueryClass.of(HOW_TO, 0.0, [1.0, 0.8]) == (HOW_TO, False, False)


@pytest.mark.parametrize(
    ("query", "available", "rungs"),
    [
        (FACT, (EXTRACTIVE,), (EXTRACTIVE,)),
        (FACT, ALL, (EXTRACTIVE,)),
        (QueryClass(AnswerKind.FACT, False, True), ALL, (SMALL, LARGE, EXTRACTIVE)),
        (QueryClass(HOW_TO, True, False), ALL, (LARGE, SMALL, EXTRACTIVE)),
        (QueryClass(AnswerKind.COMPARISON, True, True), ALL, (LARGE, SMALL, EXTRACTIVE)),
        (QueryClass(AnswerKind.UNKNOWN, True, True), ALL, (LARGE, SMALL, EXTRACTIVE)),
        (QueryClass(AnswerKind.EXPLANATION, True, True), (EXTRACTIVE, SMALL), (SMALL, EXTRACTIVE)),
    ],
)
def test_a_class_uses_its_available_writers(
    query: QueryClass, available: tuple[str, ...], rungs: tuple[str, ...]
) -> None:
    assert ModelRouter(available).route(query).rungs == rungs


def test_the_caller_may_choose_and_extraction_is_the_last_rung() -> None:
    router = ModelRouter(ALL)
    assert router.route(FACT, asked=SMALL).rungs == (SMALL, LARGE, EXTRACTIVE)
    assert router.route(FACT, asked=EXTRACTIVE).rungs == (EXTRACTIVE,)


def test_no_model_is_called_without_enough_time() -> None:
    route = ModelRouter(ALL).route(FACT._replace(strong=False), left_s=0.4)
    assert route.rungs == (EXTRACTIVE,)
    assert route.reason == "0.40 s are too little time for a model"
    assert not ModelRouter(ALL).route(FACT, left_s=0.4).reason


def test_every_failure_has_its_next_rung() -> None:
    assert set(NEXT_STEP) == set(ChatFailure)
    rungs = (LARGE, SMALL, EXTRACTIVE)
    assert remaining_rungs(rungs, ChatFailure.RATE_LIMITED) == (SMALL, EXTRACTIVE)
    assert remaining_rungs(rungs, ChatFailure.DEADLINE) == (EXTRACTIVE,)
    assert remaining_rungs(rungs, ChatFailure.REFUSED_REQUEST) == (EXTRACTIVE,)
    assert remaining_rungs((EXTRACTIVE,), ChatFailure.DEADLINE) == ()


def test_under_overload_no_model_writes_and_the_answer_says_so() -> None:
    router = ModelRouter(ALL)
    weak = QueryClass(HOW_TO, False, False)

    def route(query: QueryClass, asked: str = "") -> Route:
        note_overload()
        return router.route(query, asked=asked)

    for query, asked in ((weak, ""), (FACT, LARGE)):
        assert router.route(query, asked=asked).reason == ""
        found = contextvars.copy_context().run(route, query, asked)
        assert found.rungs == (EXTRACTIVE,) and "overloaded" in found.reason
    # It needs none.
    assert contextvars.copy_context().run(route, FACT) == Route((EXTRACTIVE,))
