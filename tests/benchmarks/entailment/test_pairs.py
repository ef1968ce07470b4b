"""Tests that made pairs have the labels that their words imply, and give none of them away."""

from __future__ import annotations

import random
from collections import defaultdict

from benchmarks.entailment.claim_grammar import CONTRADICTED, SILENT, SUPPORTED, ClaimGrammar
from benchmarks.entailment.sentence_edits import SentenceEdits

SECTION = [
    "The tower was built by Maria Holt in 1841, after a storm had destroyed the old one.",
    "It is 38 metres high and was painted in red by the keepers of Port Corvane.",
    "Most keepers left the island before the winter of 1972.",
]


def test_each_statement_of_the_grammar_is_supported_once_and_contradicted_once() -> None:
    grammar = ClaimGrammar(random.Random(0))
    for _ in range(200):
        labels = defaultdict(set)
        sources = defaultdict(set)
        for pair in grammar.pairs():
            labels[pair.statement].add(pair.label)
            sources[pair.label].add(pair.source)
            assert "{" not in pair.statement + pair.source
        both = [found for found in labels.values() if found == {SUPPORTED, CONTRADICTED}]
        assert len(both) == 2
        assert sources[SUPPORTED] == sources[CONTRADICTED]


def test_no_statement_of_the_grammar_tells_numbers_of_its_own() -> None:
    grammar = ClaimGrammar(random.Random(1))
    shares = ["%" in pair.statement for _ in range(200) for pair in grammar.pairs()]
    assert not any(shares)


def test_a_changed_sentence_is_supported_by_its_own_source_alone() -> None:
    edits = SentenceEdits([("Corvane", SECTION)], random.Random(2))
    made = [found for _ in range(60) if (found := edits.pairs())]
    assert len(made) > 20
    for found in made:
        pairs = [pair for _, pair in found]
        assert {title for title, _ in found} == {"Corvane"}
        supported = [pair for pair in pairs if pair.label == SUPPORTED]
        contradicted = [pair for pair in pairs if pair.label == CONTRADICTED]
        assert len(supported) == len(contradicted) == 2
        assert {pair.source for pair in supported} == {pair.source for pair in contradicted}
        assert all(pair.source not in pair.statement for pair in pairs if pair.label == SILENT)
