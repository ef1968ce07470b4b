"""Parts of shards made by hand, and live changes that a test makes up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.v1 import snapshot_pb2
from retrieval.index.attributes import snapshot_attributes
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.planner import Matches
from retrieval.index.item_table import ItemTable
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.segment import Segment
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.live.progress import LiveState, LiveView
from retrieval.protocols.watermark import Watermark
from tests.retrieval.small_snapshots import Document, index_of, write_items

DIM = 4
WORDS = ("apple", "fig", "pear", "plum")
# What a word adds to a score, each time: whole numbers, so that sums are exact and many are equal.
WEIGHTS = {"apple": 1, "fig": 2, "pear": 2, "plum": 3}
_Field = snapshot_pb2.AttributeField
FIELDS = (
    _Field(name="kind", kind=_Field.KIND_STRING),
    _Field(name="tags", kind=_Field.KIND_STRING, is_list=True),
    _Field(name="year", kind=_Field.KIND_INT),
)


def random_document(rng: np.random.Generator, name: str, most_chunks: int = 3) -> Document:
    """Makes a document whose scores are whole numbers."""
    texts = [
        " ".join(rng.choice([*WORDS, "kiwi"], rng.integers(0, 5)))
        for _ in range(rng.integers(1, most_chunks + 1))
    ]
    ends = np.cumsum([len(text) for text in texts]).tolist()
    attributes: dict[str, object] = {"year": int(rng.integers(2000, 2004))}
    if rng.random() < 0.8:
        attributes["kind"] = str(rng.choice(["a", "b", "c"]))
    if rng.random() < 0.5:
        attributes["tags"] = [str(tag) for tag in rng.choice(["x", "y", "z"], 2)]
    return Document(
        id=name,
        vectors=rng.integers(-1, 2, (len(texts), DIM)).astype(np.float32),
        title=f"Title of {name} {rng.integers(100)}",
        text="".join(texts),
        bounds=list(zip([0, *ends], ends, strict=False)),
        attributes=attributes,
        version=int(rng.integers(0, 3)),
    )


def part_of(folder: Path, documents: Sequence[Document], factory: str = "Flat") -> Segment:
    """Makes a part of some documents; its files lie in a new folder of that name."""
    folder.mkdir()
    ordered = sorted(documents, key=lambda document: document.id)
    write_items(folder / "items.arrow", ordered)
    items = ItemTable(folder / "items.arrow")
    dim = ordered[0].vectors.shape[1] if ordered else DIM
    index = FaissIndex(index_of(factory, dim, ordered))
    columns = {
        "kind": pa.array([d.attributes.get("kind") for d in ordered], pa.string()),
        "tags": pa.array([d.attributes.get("tags") for d in ordered], pa.list_(pa.string())),
        "year": pa.array([d.attributes.get("year") for d in ordered], pa.int64()),
    }
    table = AttributeTable(pa.table(columns), FIELDS, len(ordered))
    words = words_of([d.text[start:end] for d in ordered for start, end in d.spans()])
    return Segment(
        index, items, snapshot_attributes(table, items, index, words), words, unit_length=False
    )


def words_of(texts: Sequence[str]) -> LexicalIndex:
    """Makes the index of chunks; their statistics are those of nothing in particular."""
    table = pa.table(
        {
            "word": pa.array(WORDS, pa.large_string()),
            "chunks": pa.array([7, 5, 3, 1], pa.uint32()),
        }
    )
    counts = [Counter(text.split()) for text in texts]
    columns = [[row for row, count in enumerate(counts) if count[word]] for word in WORDS]
    return LexicalIndex(
        Vocabulary(table, Analyser("none")),
        len(texts),
        np.cumsum([0, *map(len, columns)]).astype(np.int64),
        np.array([row for rows in columns for row in rows], np.int32),
        np.array(
            [
                WEIGHTS[word] * counts[row][word]
                for word, rows in zip(WORDS, columns, strict=True)
                for row in rows
            ],
            np.float32,
        ),
    )


def without(part: Segment, hidden: Collection[str]) -> Matches:
    """Returns what is left of a part once documents are hidden."""
    items = part.items
    ids = items.ids(np.arange(items.documents))
    return matches_of(part, np.array([one not in hidden for one in ids], np.bool_))


def matches_of(part: Segment, documents: NDArray[np.bool_]) -> Matches:
    """Returns documents with their rows."""
    counts = [len(part.items.rows_of(document)) for document in range(part.items.documents)]
    chunks = np.repeat(documents, counts)
    bitmap = np.packbits(chunks, bitorder="little")
    return Matches(documents, chunks, bitmap, int(chunks.sum()))


class MadeUp(LiveState):
    """Live changes as a test says they are."""

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self._moved = asyncio.Condition()
        self.waiting = 0

    def reached(self, least: Watermark) -> bool:
        return self.view.applied.watermark.covers(least)

    async def wait(self, least: Watermark, deadline: float | None) -> None:
        async with self._moved:
            self.waiting += 1
            self._moved.notify_all()
            await self._moved.wait_for(lambda: self.reached(least))
            self.waiting -= 1

    async def move(self, view: LiveView, waiting: int) -> None:
        """Goes on to another state once so many wait for it."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.waiting == waiting)
            self.view = view
            self._moved.notify_all()
