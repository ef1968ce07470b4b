"""Vocabularies number words; those of release 0.2.0, by the first text analysis, still do."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import Stemmer
from google.protobuf import json_format

from nearline.store.snapshot import shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.item_table import ItemTable
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.vocabulary import SCHEMA, Vocabulary
from retrieval.live.words import LiveWords

STORE = Path(__file__).parents[3] / "fixtures/release_0_2_0/store"
SNAPSHOTS = sorted(STORE.glob("*/snapshots/*/"))
# Words of several forms, stop words, words of one chunk, compounds, and misspelt words.
QUERIES = (
    *("quiet kettle", "Kettles 4 of the word4", "word12 word4", "kettle kettle kettle 3", "the"),
    *("ketle", "word-4", "kettle's", "unknown", "", "quiet_kettle", "kéttle"),
)


def split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.parts[-3])
@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_those_of_words_alone(snapshot: Path, query: str) -> None:
    vocabulary = Vocabulary.load(snapshot)
    assert vocabulary.analyser.version == 1
    stemmer = Stemmer.Stemmer("english")

    def words(text: str) -> list[str]:
        kept = [word for word in split(text) if word not in vocabulary.analyser.stop_words]
        return list(stemmer.stemWords(kept))

    shards = sorted(snapshot.glob("shards/*"))
    tables = [ItemTable(shard / "items.arrow") for shard in shards]
    # One chunk each.
    texts = [[words(f"{t.title(n)} {t.text(n)}") for n in range(t.documents)] for t in tables]
    every = [text for shard in texts for text in shard]
    mean = sum(map(len, every)) / len(every)
    found_in = Counter(word for text in every for word in set(text))
    card = json_format.Parse(
        (snapshot / "manifest.json").read_text(), snapshot_pb2.Manifest()
    ).lexical
    for number, (table, shard) in enumerate(zip(tables, texts, strict=True)):
        folder = shard_folder(snapshot, number)
        index = LexicalIndex.load(folder, vocabulary, table.chunks)
        wanted = [
            sum(
                math.log(1 + (len(every) - found_in[word] + 0.5) / (found_in[word] + 0.5))
                * text.count(word)
                / (text.count(word) + 1.2 * (0.25 + 0.75 * len(text) / mean))
                for word in words(query)
                if word in found_in
            )
            for text in shard
        ]
        rows = np.arange(table.chunks)
        scores = index.scores(query, rows)
        assert scores.tolist() == pytest.approx(wanted, rel=1e-6)
        assert not index.title_levels(query, rows).any()
        found, totals = index.search(query, 100)
        assert found.tolist() == sorted(
            np.flatnonzero(scores).tolist(), key=lambda row: (-scores[row], row)
        )
        assert np.array_equal(totals, scores[found])
        # The same as live changes to such a snapshot.
        live = LiveWords(card, vocabulary)
        for row in rows.tolist():
            live.add(row, table.title(row), {}, [table.text(row)])
        view = live.view(len(rows), lambda rows: [f"{row:03}" for row in rows.tolist()])
        assert np.array_equal(view.scores(query, rows), scores)
        assert not view.title_levels(query, rows).any()
        assert [part.tolist() for part in view.search(query, 100)] == [
            found.tolist(),
            totals.tolist(),
        ]


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
