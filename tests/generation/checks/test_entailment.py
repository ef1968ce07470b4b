"""Tests which problems an entailment model adds and removes, and what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from generation.checks.entailment import MAX_SPANS, EntailmentCheck
from generation.checks.groundedness import WEAK_SUPPORT
from generation.checks.sentence_verifier import VerifiedSentence
from nearline import contract as c
from nearline.errors import NotReady
from tests.generation.evidence.test_sentence_judge import CARD, Clock
from tests.generation.scripted_writers import evidence, span

BOILS = "The kettle boils water in 3 minutes."
NUMBER = "number '3' is not in the source"
UNIT, DATE = "unit of '3 g' differs from the source", "date 'May 3' is not in the source"
LAMP = "The lamp takes two batteries."


class Judge:
    """Returns the same scores for every pair, or fails."""

    def __init__(
        self,
        entailment: float,
        contradiction: float,
        fails: bool = False,
        model: str = c.ENTAILMENT_JUDGE,
    ) -> None:
        self.asked: list[tuple[str, str]] = []
        self.requests = self.cards = 0
        self.model = model
        self._said = entailment, contradiction
        self._fails = fails

    async def info(self) -> c.EmbedderInfo:
        self.cards += 1
        return replace(CARD, entailment=self.model)

    async def entail(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str],
        *,
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.EntailmentScores:
        if self._fails:
            raise NotReady("the model is loading")
        self.requests += 1
        self.asked += zip(premises, hypotheses, strict=True)
        entailment, contradiction = self._said
        return c.EntailmentScores(
            entailment=[entailment] * len(premises),
            contradiction=[contradiction] * len(premises),
            fingerprint="f",
        )


def sentence(*problems: str) -> VerifiedSentence:
    return VerifiedSentence(
        " It boils.", [span(0, 0), span(1, 0)], [0.5, 0.5], problems, "It boils."
    )


@pytest.mark.parametrize(
    ("judge", "before", "after"),
    [
        (Judge(0.9, 0.05), (), ()),
        (Judge(0.9, 0.05), (WEAK_SUPPORT,), ()),
        (Judge(0.4, 0.1), (WEAK_SUPPORT,), (WEAK_SUPPORT,)),
        (Judge(0.9, 0.05), ("name 'Holt' is not in the source", WEAK_SUPPORT), ()),
        (Judge(0.9, 0.05), ("negation is not in the source",), ()),
        (Judge(0.9, 0.05), (WEAK_SUPPORT, NUMBER), (NUMBER,)),
        (Judge(0.9, 0.05), (UNIT, DATE), (UNIT, DATE)),
        (Judge(0.1, 0.8), (), ("the source contradicts it, according to a model (0.80)",)),
        (Judge(0.9, 0.9, fails=True), (WEAK_SUPPORT,), (WEAK_SUPPORT,)),
        (Judge(0.1, 0.9, model=""), (), ()),
    ],
)
async def test_a_model_overrules_all_but_numbers_and_detects_contradiction(
    judge: Judge, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    found = await EntailmentCheck(judge).apply(sentence(*before), evidence(), 1.0)
    assert found.problems == after
    assert found.text == " It boils."


async def test_all_cited_spans_are_compared_in_one_request_with_their_titles() -> None:
    judge = Judge(0.9, 0.0)
    check = EntailmentCheck(judge)
    await check.apply(sentence(), evidence(), 1.0)
    assert judge.asked == [
        (f"kettle manual\n{BOILS}", "It boils."),
        (f"lamp manual\n{LAMP}", "It boils."),
    ]
    await check.apply(VerifiedSentence("In short:", [], [], (), "In short:"), evidence(), 1.0)
    assert judge.requests == 1


async def test_other_models_read_the_text_without_its_title() -> None:
    judge = Judge(0.9, 0.0, model="some/cross-encoder")
    await EntailmentCheck(judge).apply(sentence(), evidence(), 1.0)
    assert [premise for premise, _ in judge.asked] == [BOILS, LAMP]


async def test_spans_and_characters_are_bounded() -> None:
    judge = Judge(0.9, 0.0)
    long = VerifiedSentence("x", [span(0, 0)] * 40, [0.5] * 40, (), "word " * 100_000)
    await EntailmentCheck(judge).apply(long, evidence(), 1.0)
    assert len(judge.asked) == MAX_SPANS
    assert max(len(body) for _, body in judge.asked) == 4_096


async def test_a_span_that_supports_outweighs_one_that_contradicts() -> None:
    found = await EntailmentCheck(Judge(0.8, 0.9)).apply(sentence(), evidence(), 1.0)
    assert found.problems == ()


async def test_the_card_is_read_again_after_a_minute() -> None:
    clock, judge = Clock(), Judge(0.0, 0.9)
    check = EntailmentCheck(judge, clock)
    for moment, cards in ((0.0, 1), (59.0, 1), (61.0, 2)):
        clock.now = moment
        await check.apply(sentence(), evidence(), 1.0)
        assert judge.cards == cards
