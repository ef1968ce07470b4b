"""Who writes: by the kind of a question, the evidence, the time left, and the failure before."""

from __future__ import annotations

import pytest

from generation.protocols.chat_model import Failure
from generation.writers.extractive import EXTRACTIVE
from generation.writers.routing import (
    AFTER,
    LARGE,
    SMALL,
    Kind,
    QueryClass,
    Router,
    after,
    classify,
)

ALL = (EXTRACTIVE, SMALL, LARGE)
FACT = QueryClass(Kind.FACT, True, True)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("who wrote the tale?", Kind.FACT),
        ("What is the boiling time", Kind.FACT),
        ("how many batteries does it take?", Kind.FACT),
        ("is the lid safe to open?", Kind.FACT),
        ("Compare the lamp and the kettle", Kind.COMPARISON),
        ("what is the difference between a lamp and a torch", Kind.COMPARISON),
        ("kettle vs lamp", Kind.COMPARISON),
        ("why does it hum?", Kind.EXPLANATION),
        ("Summarise the manual", Kind.EXPLANATION),
        ("what are the steps to descale it", Kind.EXPLANATION),
        ("how do I descale the kettle?", Kind.OTHER),
        ("descaling", Kind.OTHER),
        ("the whole story", Kind.OTHER),
    ],
)
def test_a_question_is_of_a_kind(question: str, kind: Kind) -> None:
    assert classify(question, 0.5, [1.0]).kind is kind


def test_evidence_is_strong_and_a_document_alone_by_their_numbers() -> None:
    assert classify("x", 0.7, [1.0]) == (Kind.OTHER, True, True)
    assert classify("x", 0.69, [1.0, 0.79]) == (Kind.OTHER, False, True)
    assert classify("x", 0.0, [1.0, 0.8]) == (Kind.OTHER, False, False)


@pytest.mark.parametrize(
    ("query", "available", "rungs"),
    [
        (FACT, (EXTRACTIVE,), (EXTRACTIVE,)),
        (FACT, ALL, (EXTRACTIVE,)),
        (QueryClass(Kind.FACT, False, True), ALL, (SMALL, LARGE, EXTRACTIVE)),
        (QueryClass(Kind.OTHER, True, False), ALL, (LARGE, SMALL, EXTRACTIVE)),
        (QueryClass(Kind.COMPARISON, True, True), ALL, (LARGE, SMALL, EXTRACTIVE)),
        (QueryClass(Kind.EXPLANATION, True, True), (EXTRACTIVE, SMALL), (SMALL, EXTRACTIVE)),
    ],
)
def test_a_class_has_its_writers_among_those_there_are(
    query: QueryClass, available: tuple[str, ...], rungs: tuple[str, ...]
) -> None:
    router = Router(available)
    assert router.route(query, "s1").rungs == rungs
    assert router.route(query, "s1").rungs == rungs


def test_the_caller_may_choose_and_the_evidence_remains_the_last_rung() -> None:
    router = Router(ALL)
    assert router.route(FACT, "s1", asked=SMALL).rungs == (SMALL, LARGE, EXTRACTIVE)
    assert router.route(FACT, "s1", asked=EXTRACTIVE).rungs == (EXTRACTIVE,)


def test_no_model_is_asked_where_it_has_no_time() -> None:
    route = Router(ALL).route(FACT._replace(strong=False), "s1", left_s=0.4)
    assert route.rungs == (EXTRACTIVE,)
    assert route.reason == "0.40 s are too little time for a model"
    assert not Router(ALL).route(FACT, "s1", left_s=0.4).reason


def test_every_failure_has_its_next_rung() -> None:
    assert set(AFTER) == set(Failure)
    rungs = (LARGE, SMALL, EXTRACTIVE)
    assert after(rungs, Failure.RATE_LIMITED) == (SMALL, EXTRACTIVE)
    assert after(rungs, Failure.DEADLINE) == (EXTRACTIVE,)
    assert after(rungs, Failure.REFUSED_REQUEST) == (EXTRACTIVE,)
    assert after((EXTRACTIVE,), Failure.DEADLINE) == ()
