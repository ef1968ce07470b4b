"""Vocabularies number words; those of release 0.2.0, by the first text analysis, still do."""

from __future__ import annotations

import pyarrow as pa
import pytest

from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.vocabulary import SCHEMA, Vocabulary


@pytest.mark.parametrize("version", [1, 2])
def test_words_are_stemmed_once(version: int) -> None:
    """The stem of a stem may be another: leases, leas, lea."""
    words = ["lea", "leas"]
    vocabulary = Vocabulary(
        pa.table([pa.array(words, pa.large_string()), pa.array([5, 7], pa.uint32())], SCHEMA),
        Analyser("english", (), version),
    )
    (clause,) = vocabulary.query("leases").clauses
    assert [(one.word, one.number) for one in clause.alternatives] == [("leas", 1)]


@pytest.mark.parametrize("words", [[], ["a"], ["a", "aé", "b", "z𝒳"]])
def test_each_word_has_a_number(words: list[str]) -> None:
    ordered = sorted(words, key=str.encode)
    table = pa.table(
        [pa.array(ordered, pa.large_string()), pa.array(range(len(words)), pa.uint32())], SCHEMA
    )
    vocabulary = Vocabulary(table, Analyser("none"))
    assert len(vocabulary) == len(words)
    for number, word in enumerate(ordered):
        assert vocabulary.number(word) == number and vocabulary.word(number) == word
        assert vocabulary.terms(f"{word} nothing") == [(word, number), ("nothing", 0)] or (
            not word.isascii()
        )
    assert [vocabulary.number(word) for word in ("", "aa", "zz", "\ud800")] == [-1] * 4


def test_long_queries_are_parsed_again_only_if_others_were_asked() -> None:
    table = pa.table([pa.array(["a"], pa.large_string()), pa.array([1], pa.uint32())], SCHEMA)
    vocabulary = Vocabulary(table, Analyser("none"))
    for text in ("a b", "a " * 2_000):
        assert vocabulary.query(text) is vocabulary.query(text)
