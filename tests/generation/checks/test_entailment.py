"""Tests which problems an entailment model adds and removes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from generation.checks.groundedness import WEAK_SUPPORT
from generation.checks.sentence_verifier import VerifiedSentence, apply_entailment
from nearline import contract as c
from nearline.errors import NotReady
from tests.generation.scripted_writers import evidence, span


class Judge:
    """Returns the same scores for every pair, or fails."""

    def __init__(self, entailment: float, contradiction: float, fails: bool = False) -> None:
        self.asked: list[tuple[str, str]] = []
        self._said = entailment, contradiction
        self._fails = fails

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
        self.asked += zip(premises, hypotheses, strict=True)
        entailment, contradiction = [self._said[0]], [self._said[1]]
        return c.EntailmentScores(
            entailment=entailment, contradiction=contradiction, fingerprint="f"
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
        (Judge(0.9, 0.05), (WEAK_SUPPORT, "number '3' is not in the source"), None),
        (Judge(0.1, 0.8), (), ("the source contradicts it, according to a model (0.80)",)),
        (Judge(0.9, 0.9, fails=True), (WEAK_SUPPORT,), (WEAK_SUPPORT,)),
    ],
)
async def test_a_model_overrules_only_wording_and_detects_contradiction(
    judge: Judge, before: tuple[str, ...], after: tuple[str, ...] | None
) -> None:
    found = await apply_entailment(judge, sentence(*before), evidence(), 1.0)
    assert found.problems == (before if after is None else after)
    assert found.text == " It boils."


async def test_only_cited_spans_are_checked() -> None:
    judge = Judge(0.9, 0.0)
    await apply_entailment(judge, sentence(), evidence(), 1.0)
    assert judge.asked == [
        ("The kettle boils water in 3 minutes. The lamp takes two batteries.", "It boils.")
    ]
    await apply_entailment(
        judge, VerifiedSentence("In short:", [], [], (), "In short:"), evidence(), 1.0
    )
    assert len(judge.asked) == 1
