"""The files of the lexical index: BM25 by the statistics of all shards."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.indexes import lexical_writer
from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.lexical import text_analysis
from retrieval.index.lexical.bm25_index import K1, B
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.vocabulary import Vocabulary
from tests.retrieval.index.lexical.small_indexes import Built, Document


def test_blocks_of_any_size_give_the_same_files(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [
        Document(f"t{number % 3}", [" ".join(f"w{n}" for n in rng.integers(0, 90, 20))])
        for number in range(50)
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Built(tmp_path / "a", documents, 2, popular=True)
    monkeypatch.setattr(lexical_writer, "_SPILL_POSTINGS", 7)
    monkeypatch.setattr(lexical_writer, "_BLOCK_POSTINGS", 11)
    Built(tmp_path / "b", documents, 2, popular=True)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.[na][pr]*"))
    # The vocabulary, two files of word forms, and eight of each shard.
    assert len(files) == 3 + 2 * 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_scores_equal_those_of_bm25s(tmp_path: Path, rng: np.random.Generator) -> None:
    texts = [[f"w{n}" for n in rng.zipf(1.5, 30) if n < 500] for _ in range(200)]
    built = Built(tmp_path, [Document("", [" ".join(words)]) for words in texts], 3, "none")
    reference = bm25s.BM25(k1=K1, b=B, method="lucene")
    reference.index([words or [""] for words in texts], show_progress=False)
    query = ["w1", "w7", "w33"]
    wanted = reference.get_scores(query)
    found = built.search(" ".join(query))
    every = [found.get((number, 0), 0.0) for number in range(len(texts))]
    assert np.allclose(every, wanted, rtol=1e-6)


def test_the_best_k_equal_a_full_sort_with_ties_by_row(tmp_path: Path) -> None:
    # Three kinds of chunk, so that most scores are tied at every edge.
    documents = [Document("", ["fig " * (1 + number % 3)]) for number in range(30)]
    built = Built(tmp_path, documents, 1)
    (index,) = built.indexes()
    rows, scores = index.search("figs", 30)
    assert len(rows) == 30
    for k in range(1, 30):
        best, best_scores = index.search("figs", k)
        assert np.array_equal(best, rows[:k]) and np.array_equal(best_scores, scores[:k])
    allow = np.zeros(30, np.bool_)
    allow[rows[::4]] = True
    assert index.search("figs", 5, allow)[0].tolist() == rows[::4][:5].tolist()
    assert index.search("figs", 5, np.zeros(30, np.bool_))[0].tolist() == []
    for nothing in ("", "the", "unknown", "…"):
        assert index.search(nothing, 5)[0].tolist() == []
        assert index.scores(nothing, np.array([3, 1])).tolist() == [0, 0]


def test_a_repeated_word_counts_repeatedly(tmp_path: Path) -> None:
    built = Built(tmp_path, [Document("", ["plum"]), Document("", ["fig fig plum"])], 1)
    (index,) = built.indexes()
    once, often = (index.scores(query, np.arange(2)) for query in ("fig", "fig " * 7))
    assert often.tolist() == [0, np.float32(7) * once[1]]


def test_concurrent_searches_do_not_interfere(tmp_path: Path, rng: np.random.Generator) -> None:
    documents = [
        Document(f"w{number % 40}", [" ".join(f"w{n}" for n in rng.integers(0, 40, 12))])
        for number in range(300)
    ]
    (index,) = Built(tmp_path, documents, 1, "none").indexes()
    queries = [" ".join(f"w{n}" for n in rng.integers(0, 40, 4)) for _ in range(50)] * 8
    alone = {query: [a.tolist() for a in index.search(query, 10)] for query in queries}
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda query: index.search(query, 10), queries))
    assert [[a.tolist() for a in one] for one in found] == [alone[query] for query in queries]


def test_the_vocabulary_stores_the_text_analysis(tmp_path: Path) -> None:
    built = Built(
        tmp_path,
        [Document("Das", ["die Hunde"]), Document("", ["Hund Katze"])],
        1,
        "german",
        weights={"text": 2.0},
    )
    vocabulary = Vocabulary.load(built.folder)
    assert vocabulary.language == "german"
    # Stop words are indexed where they are in titles.
    assert [vocabulary.word(number) for number in range(len(vocabulary))] == ["das", "hund", "katz"]
    assert vocabulary.words("die Katzen, der Hund, das Pferd") == ["katz", "hund", "pferd"]
    assert vocabulary.terms("die Katzen, der Hund, Hunde, das Pferd") == [
        ("katz", 1),
        ("hund", 2),
        ("pferd", 0),
    ]
    assert [vocabulary.number(word) for word in ("das", "hund", "katz", "pferd")] == [0, 1, 2, -1]
    assert built.card == snapshot_pb2.LexicalCard(
        language="german",
        k1=K1,
        b=B,
        mean_length=2 * 1.5,
        chunks=2,
        words=3,
        weights={"text": 2.0},
    )


def _corrupted(path: Path, contents: bytes | NDArray[Any]) -> None:
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        np.save(path, contents)


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("rows.npy", np.array([0], np.int32), r"arrays of lengths \(3, 1, 2\)"),
        ("rows.npy", np.array([0.0, 0.0]), "type float64, not one dimension of int32"),
        ("rows.npy", b"\x93NUMPY", r"rows\.npy is not a valid array"),
        ("title_starts.npy", np.array([0, 1, 1, 1]), r"arrays of lengths \(4, 1, 1, 1\), not"),
        ("title_starts.npy", np.array([], np.int64), r"arrays of lengths \(0, 1, 1, 1\), not"),
        ("title_rows.npy", np.array([[0]], np.int32), r"has shape \(1, 1\)"),
        ("title_words.npy", np.array([1, 1], np.uint16), r"of lengths \(3, 1, 2, 1\), not"),
        ("title_keys.npy", np.array([1], np.int64), "type int64, not one dimension of uint64"),
        ("popularity.npy", np.array([0.5, 0.5], np.float32), "the titles in .* have arrays"),
        ("popularity.npy", b"", r"popularity\.npy is not a valid array"),
        ("title_keys.npy", b"\x93NUMPY", r"title_keys\.npy is not a valid array"),
    ],
)
def test_invalid_files_of_a_shard_are_refused(
    tmp_path: Path, name: str, contents: bytes | NDArray[Any], said: str
) -> None:
    built = Built(tmp_path, [Document("fig", ["plum"])], popular=True)
    _corrupted(shard_folder(built.folder, 0) / "lexical" / name, contents)
    with pytest.raises(SnapshotCorrupt, match=f"{said}.*rebuild"):
        built.indexes()


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("vocabulary.arrow", b"ARROW1", "not a readable vocabulary"),
        ("forms.arrow", b"ARROW1", "no readable word forms"),
        ("forms.arrow", b"", "no readable word forms"),
        ("form_segments.npy", np.zeros(3, np.uint32), "has type uint32"),
        ("form_segments.npy", b"\x93NUMPY", "no readable word forms"),
    ],
)
def test_invalid_files_of_a_vocabulary_are_refused(
    tmp_path: Path, name: str, contents: bytes | NDArray[Any], said: str
) -> None:
    built = Built(tmp_path, [Document("fig", ["plum"])])
    _corrupted(built.folder / "lexical" / name, contents)
    with pytest.raises(SnapshotCorrupt, match=f"{said}.*rebuild"):
        built.indexes()


@pytest.mark.parametrize(
    "name",
    [
        *("lexical/vocabulary.arrow", "lexical/forms.arrow", "lexical/form_segments.npy"),
        *("starts.npy", "rows.npy", "scores.npy"),
        *("title_starts.npy", "title_rows.npy", "title_words.npy", "title_keys.npy"),
    ],
)
def test_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    built = Built(tmp_path, [Document("fig", ["plum"])])
    shard = shard_folder(built.folder, 0) / "lexical"
    (built.folder / name if "/" in name else shard / name).unlink()
    with pytest.raises(SnapshotCorrupt, match="rebuild the snapshot"):
        built.indexes()


def test_another_text_analysis_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(tmp_path, [Document("", ["fig plum"])])
    monkeypatch.setattr(text_analysis, "VERSIONS", (3,))
    monkeypatch.setattr(text_analysis, "VERSION", 3)
    with pytest.raises(SnapshotMismatch, match=r"analysis 2 .* has analysis 3 .*rebuild"):
        built.indexes()


def test_a_stemmer_with_other_stems_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(tmp_path, [Document("", [" ".join(f"ties{n} plums" for n in range(2_000))])])
    Vocabulary.load(built.folder)
    monkeypatch.setattr(Analyser, "stems", lambda analyser, words: list(words))
    with pytest.raises(
        SnapshotMismatch, match=r"stems 'plums' as 'plums'; in .* stemmed it as 'plum'; inst"
    ):
        Vocabulary.load(built.folder)


def test_texts_without_words_have_no_index(tmp_path: Path) -> None:
    built = Built(tmp_path, [Document("", ["…"]), Document("", ["the"])], 2)
    assert built.card is None
    assert [p for p in built.folder.rglob("*") if p.is_file() or p.name == "lexical"] == []
    assert Counter(p.name for p in built.folder.iterdir()) == {"shards": 1}


def test_a_title_may_have_more_words_than_are_counted(tmp_path: Path) -> None:
    long = " ".join(f"w{number}" for number in range(70_000))
    built = Built(tmp_path, [Document(long, ["fig"]), Document("w0 w1", ["plum"])], 1, "none")
    (index,) = built.indexes()
    assert np.load(shard_folder(built.folder, 0) / "lexical" / "title_words.npy").tolist() == [
        65_535,
        2,
    ]
    assert index.title_levels("w1 w0", np.arange(2)).tolist() == [1, 2]
