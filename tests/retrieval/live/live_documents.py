"""Documents for tests of live changes."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import numpy as np

from nearline.contract import PayloadField
from retrieval.live.progress import LiveView
from tests.retrieval.live.base_shards import DIM, EPOCH, Base
from tests.retrieval.small_snapshots import Document

NAMES = [f"n{number}" for number in range(9)]
WORDS = ("apple", "pear", "plum", "quince", "medlar")
FAR = (datetime(2100, 1, 1, tzinfo=EPOCH.tzinfo) - EPOCH) // timedelta(microseconds=1)


def document(seed: int, name: str, expires: int | None = None) -> Document:
    """Creates a document from few distinct vectors and texts, so that many scores are equal."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 4))) for _ in range(rng.integers(1, 4))]
    ends = np.cumsum([len(text) for text in texts]).tolist()
    attributes: dict[str, object] = {"year": int(rng.integers(2000, 2004)), "other": seed}
    if rng.random() < 0.7:
        attributes["kind"] = str(rng.choice(["a", "b"]))
    if rng.random() < 0.5:
        attributes["tags"] = [str(tag) for tag in rng.choice(["x", "y"], 2)]
    if rng.random() < 0.5:
        attributes["price"] = float(rng.integers(0, 4)) / 2
    vectors = rng.integers(-1, 2, (len(texts), DIM)) * np.float32(0.3)
    return Document(
        id=name,
        vectors=vectors.astype(np.float32),
        title=str(rng.choice(["", "pear", "A title"])),
        text="".join(texts),
        bounds=list(zip([0, *ends], ends, strict=False)),
        attributes=attributes,
        expires=expires,
    )


def snapshot_documents() -> list[Document]:
    return [document(n, name, FAR + n if n % 3 == 0 else None) for n, name in enumerate(NAMES[:6])]


def stored(base: Base, view: LiveView) -> dict[str, tuple[Document, int]]:
    """Returns all served documents with versions, in scan order."""
    everything = frozenset(PayloadField)
    parts = [(base.part, view.alive), (view.part, view.part_alive)]
    found: dict[str, tuple[Document, int]] = {}
    for part, alive in parts:
        if part is None:
            continue
        ids = []
        for item in part.scan("", None, everything, alive):
            number = part.items.find(item.id)
            assert number is not None
            rows = part.items.rows_of(number)
            _, starts, ends = part.items.chunks_of(rows, np.full(len(rows), number))
            expires = part.items.expires(number)
            one = Document(
                id=item.id,
                vectors=part.index.reconstruct(rows),
                title=item.title,
                text=item.text,
                bounds=list(zip(starts, ends, strict=True)),
                attributes=dict(item.attributes),
                expires=None if expires is None else (expires - EPOCH) // timedelta(0, 0, 1),
            )
            assert item.id not in found
            found[item.id] = one, part.items.version(number)
            ids.append(item.id)
        assert ids == sorted(ids)
    return found


def same(one: Document, other: Document) -> bool:
    plain = [dataclasses.replace(d, vectors=np.empty(0, np.float32)) for d in (one, other)]
    spans = [[*map(tuple, d.spans())] for d in (one, other)]
    for each in plain:
        each.bounds, each.version = (), 0
    return (
        repr(plain[0]) == repr(plain[1])
        and spans[0] == spans[1]
        and np.array_equal(one.vectors, other.vectors)
    )
