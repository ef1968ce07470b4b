"""The lexical index is BM25 for any number of shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.documents.records import PreparedDocument, SourceLocation
from index_builder.documents.spool import Spool
from index_builder.indexes import lexical_writer
from index_builder.indexes.lexical_writer import write_lexical
from nearline.contract import Item
from nearline.errors import InvalidRequest, SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.lexical import text_analysis
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.bm25_index import K1, B, LexicalIndex
from retrieval.index.lexical.text_analysis import Analyser, split_words
from retrieval.index.lexical.vocabulary import Vocabulary

# A document is a title and its chunks; a chunk is found by document and number.
Document = tuple[str, list[str]]
Found = dict[tuple[str, int], float]

_WORDS = st.lists(st.sampled_from("apple apples Pear the plum don't fig".split()), max_size=6)
_TEXTS = _WORDS.map(" ".join)
_DOCUMENTS = st.lists(st.tuples(_TEXTS, st.lists(_TEXTS, min_size=1, max_size=3)), min_size=1)


class Built:
    """A lexical index on disk, and the names of its rows."""

    def __init__(
        self, folder: Path, documents: Sequence[Document], shards: int, language: str = "english"
    ) -> None:
        spool = Spool(folder, shards)
        spool.begin()
        for number, (title, chunks) in enumerate(documents):
            ends = np.cumsum([len(chunk) for chunk in chunks]).tolist()
            item = Item(id=f"d{number}", title=title, text="".join(chunks))
            spool.add(
                PreparedDocument(
                    SourceLocation("t", number), item, list(zip([0, *ends], ends, strict=False))
                )
            )
        spool.finish()
        self.shards = shards
        self.folder = folder / "snapshot"
        for shard in range(shards):
            shard_folder(self.folder, shard).mkdir(parents=True)
        self.card = write_lexical(spool, shards, language, self.folder)
        self.names = [
            [(d.id, n) for d in spool.shard_documents(shard) for n in range(len(d.bounds))]
            for shard in range(shards)
        ]
        spool.close()

    def indexes(self) -> list[LexicalIndex]:
        vocabulary = Vocabulary.load(self.folder)
        return [
            LexicalIndex.load(shard_folder(self.folder, shard), vocabulary, len(names))
            for shard, names in enumerate(self.names)
        ]

    def search(self, query: str) -> Found:
        found: Found = {}
        for index, names in zip(self.indexes(), self.names, strict=True):
            rows, scores = index.search(query, 1_000)
            order = np.lexsort((rows, -scores))
            assert np.array_equal(order, np.arange(len(rows)))
            found |= {names[r]: s for r, s in zip(rows.tolist(), scores.tolist(), strict=True)}
            every = index.scores(query, np.arange(len(names))[::-1])[::-1]
            assert np.array_equal(every[rows], scores)
            assert np.count_nonzero(every) == len(rows)
        return found


def brute_force(documents: Sequence[Document], query: str, language: str = "english") -> Found:
    """Scores every chunk by the formula, summing over query words in float32."""
    analyser = analyser_of(language)
    texts = {
        (f"d{number}", chunk): analyser.words(f"{title} {text}")
        for number, (title, chunks) in enumerate(documents)
        for chunk, text in enumerate(chunks)
    }
    mean = sum(map(len, texts.values())) / len(texts)
    found: Found = {}
    for name, words in texts.items():
        total = np.float32(0)
        for word in analyser.words(query):
            n = sum(word in other for other in texts.values())
            f = words.count(word)
            if f:
                idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
                total += np.float32(idf * (f / (f + K1 * (1 - B + B * len(words) / mean))))
        if total > 0:
            found[name] = float(total)
    return found


@settings(max_examples=40, deadline=None)
@given(_DOCUMENTS, _TEXTS)
def test_scores_are_bm25_and_the_same_for_one_shard_and_four(
    documents: list[Document], query: str
) -> None:
    wanted = brute_force(documents, query)
    with TemporaryDirectory() as one, TemporaryDirectory() as four:
        whole, cut = Built(Path(one), documents, 1), Built(Path(four), documents, 4)
        assert whole.card == cut.card
        if whole.card is None:  # No text has a word.
            assert wanted == {}
            return
        found = whole.search(query)
        assert found == cut.search(query)
        assert found == pytest.approx(wanted, rel=1e-6)


def test_blocks_of_any_size_give_the_same_files(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [("", [" ".join(f"w{n}" for n in rng.integers(0, 90, 20))]) for _ in range(50)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Built(tmp_path / "a", documents, 2)
    monkeypatch.setattr(lexical_writer, "_SPILL_POSTINGS", 7)
    monkeypatch.setattr(lexical_writer, "_BLOCK_POSTINGS", 11)
    Built(tmp_path / "b", documents, 2)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.[na][pr]*"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_scores_equal_those_of_bm25s(tmp_path: Path, rng: np.random.Generator) -> None:
    texts = [[f"w{n}" for n in rng.zipf(1.5, 30) if n < 500] for _ in range(200)]
    built = Built(tmp_path, [("", [" ".join(words)]) for words in texts], 3, "none")
    reference = bm25s.BM25(k1=K1, b=B, method="lucene")
    reference.index([words or [""] for words in texts], show_progress=False)
    query = ["w1", "w7", "w33"]
    wanted = reference.get_scores(query)
    found = built.search(" ".join(query))
    every = [found.get((f"d{number}", 0), 0.0) for number in range(len(texts))]
    assert np.allclose(every, wanted, rtol=1e-6)


def test_the_best_k_equal_a_full_sort_with_ties_by_row(tmp_path: Path) -> None:
    # Three kinds of chunk, so that most scores are tied at every edge.
    documents = [("", ["fig " * (1 + number % 3)]) for number in range(30)]
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


def test_a_repeated_word_counts_twice(tmp_path: Path) -> None:
    built = Built(tmp_path, [("", ["plum"]), ("", ["fig fig plum"])], 1)
    (index,) = built.indexes()
    once, twice = (index.scores(query, np.arange(2)) for query in ("fig", "fig fig"))
    assert twice.tolist() == [0, 2 * once[1]]


def test_concurrent_searches_do_not_interfere(tmp_path: Path, rng: np.random.Generator) -> None:
    documents = [("", [" ".join(f"w{n}" for n in rng.integers(0, 40, 12))]) for _ in range(300)]
    (index,) = Built(tmp_path, documents, 1, "none").indexes()
    queries = [" ".join(f"w{n}" for n in rng.integers(0, 40, 4)) for _ in range(50)] * 8
    alone = {query: [a.tolist() for a in index.search(query, 10)] for query in queries}
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda query: index.search(query, 10), queries))
    assert [[a.tolist() for a in one] for one in found] == [alone[query] for query in queries]


def test_texts_are_split_into_words() -> None:
    english = analyser_of("english")
    assert english.words("The Cats, and a cat's mats") == ["cat", "cat", "s", "mat"]
    assert english.words("IL-6 in vitamin D") == ["il", "6", "vitamin", "d"]
    assert split_words("ﬁne café x_y") == ["fine", "café", "x_y"]  # A ligature, a combining accent.
    assert split_words("東京タワーへ go") == [*"東京タワーへ", "go"]
    assert analyser_of("german").words("Die Häuser und der Hund") == ["haus", "hund"]
    assert Analyser("none").words("The cats") == ["the", "cats"]
    with pytest.raises(InvalidRequest, match=r"'klingon'.*use one of none, arabic"):
        analyser_of("klingon")


def test_the_vocabulary_stores_the_text_analysis(tmp_path: Path) -> None:
    built = Built(tmp_path, [("Das", ["die Hunde"]), ("", ["Hund Katze"])], 1, "german")
    vocabulary = Vocabulary.load(built.folder)
    assert vocabulary.language == "german"
    assert len(vocabulary) == 2
    hund, katz = vocabulary.number("hund"), vocabulary.number("katz")
    assert vocabulary.numbers("die Katzen, der Hund, das Pferd") == (katz, hund)
    assert vocabulary.chunks[[hund, katz]].tolist() == [2, 1]
    assert built.card == snapshot_pb2.LexicalCard(
        language="german", k1=K1, b=B, mean_length=1.5, chunks=2, words=2
    )


def test_mismatching_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(tmp_path, [("", ["fig plum"])], 1)
    folder = shard_folder(built.folder, 0)
    np.save(folder / "lexical" / "rows.npy", np.array([0], np.int32))
    with pytest.raises(SnapshotCorrupt, match=r"arrays of lengths \(3, 1, 2\).*rebuild"):
        built.indexes()
    np.save(folder / "lexical" / "rows.npy", np.array([0.0, 0.0]))
    with pytest.raises(SnapshotCorrupt, match="type float64, not one dimension of int32"):
        built.indexes()
    (folder / "lexical" / "rows.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(SnapshotCorrupt, match=r"rows\.npy is not a valid array"):
        built.indexes()
    monkeypatch.setattr(text_analysis, "VERSION", 2)
    with pytest.raises(SnapshotMismatch, match=r"analysis 1 .* has analysis 2 .*rebuild"):
        built.indexes()
    (built.folder / "lexical" / "vocabulary.arrow").write_bytes(b"ARROW1")
    with pytest.raises(SnapshotCorrupt, match="not a readable vocabulary"):
        built.indexes()


def test_a_stemmer_with_other_stems_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(tmp_path, [("", [" ".join(f"ties{n} plums" for n in range(2_000))])], 1)
    Vocabulary.load(built.folder)
    monkeypatch.setattr(Analyser, "stems", lambda analyser, words: list(words))
    with pytest.raises(
        SnapshotMismatch, match=r"stems 'plums' as 'plums'; in .* stemmed it as 'plum'; inst"
    ):
        Vocabulary.load(built.folder)


def test_texts_without_words_have_no_index(tmp_path: Path) -> None:
    built = Built(tmp_path, [("", ["…"]), ("", ["the"])], 2)
    assert built.card is None
    assert [p for p in built.folder.rglob("*") if p.is_file() or p.name == "lexical"] == []
    assert Counter(p.name for p in built.folder.iterdir()) == {"shards": 1}
