"""Typos in questions, corrected to words of the evidence."""

from __future__ import annotations

import pytest

from generation.evidence.sources import group_sources
from generation.evidence.typos import corrected, misspelt_words
from nearline.contract import Hit
from retrieval.index.lexical.text_analysis import Analyser

TEXT = """## Fitness

Every free trial ends with a fitness check. The records of Netatmo stations hold temperatures.

## Rabbits

Ask Jonna Andersen about reimbursements."""


@pytest.mark.parametrize(
    ("question", "meant"),
    [
        ("what is the fitnes check", "what is the fitness check"),
        ("How many recrods fit?", "How many records fit?"),
        ("my rabit is ill", "my rabbits is ill"),
        ("neatmo and temperatrue", "netatmo and temperatures"),
        ("WHAT ARE THE RECRODS?", "WHAT ARE THE records?"),
        # Two edits are allowed from nine letters on.
        ("how do reimbursmenst work?", "how do reimbursements work?"),
        ("the recordxy", "the recordxy"),
        # English words, which may be meant; and words with another first letter.
        ("how long is the free trail?", "how long is the free trail?"),
        ("a fintess test, gecords", "a fitness test, gecords"),
        # With a capital, it may be another name.
        ("Who is Jonny Anderson?", "Who is Jonny Anderson?"),
        ("who is anderssen?", "who is andersen?"),
        # Nine words that English lacks.
        (f"recrods {' '.join(f'qxz{c}qxz' for c in 'abcdefgh')}",) * 2,
        # Too short, and words with digits or underscores.
        ("rabi x200 record_s", "rabi x200 record_s"),
    ],
)
def test_words_that_english_lacks_become_words_of_the_evidence(question: str, meant: str) -> None:
    sources = group_sources([Hit(id="a", score=1.0, end=len(TEXT), title="Notes", text=TEXT)], 1)
    assert corrected(question, misspelt_words(question, sources, Analyser("english"))) == meant
