"""Catalogues of items for the features of a search, and how they were before live changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from nearline import contract as c
from tests.retrieval.built_collections import COLLECTIONS, build_collections
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import LIVE, OBJECT, REPLICAS, opened, opened_after_changes

DIM = 16
WAYS = (OBJECT, REPLICAS, LIVE)
# Of the snapshot that live changes come after: every third item is missing, every other third has
# another title and text, and these are there.
_GONE = ("gone1", "gone2", "gone3")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items of some tests. plain, max_tokens, options: As `build_collections` takes them."""

    items: Sequence[c.Item]
    plain: bool = False
    max_tokens: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, root: Path, way: str) -> Path:
        """Builds the store for a way to serve it."""
        items = [*self.items]
        if way == LIVE:
            old = [replace(one, title=f"Old {one.title}", text="An old text.") for one in items]
            items = [
                one if number % 3 else after
                for number, (one, after) in enumerate(zip(old, items, strict=True))
                if number % 3 != 2
            ]
            items += [replace(self.items[0], id=one) for one in _GONE]
        return build_collections(
            root,
            items,
            WordEmbedder(DIM),
            plain=self.plain,
            max_tokens=self.max_tokens,
            **self.options,
        )

    @asynccontextmanager
    async def served(self, store: Path, way: str) -> AsyncIterator[c.Retriever]:
        """Serves the store that was built for a way."""
        embedder = WordEmbedder(DIM)
        if way == LIVE:
            changed = [one for number, one in enumerate(self.items) if number % 3]
            async with opened_after_changes(store, changed, _GONE, embedder) as retriever:
                yield retriever
        else:
            async with opened(way, store, embedder) as retriever:
                yield retriever


async def both(service: c.Retriever, query: c.Query | str, options: c.SearchOptions) -> c.HitList:
    """Searches the collections of one and of four shards, whose answers differ in these alone."""
    asked = c.Query(text=query) if isinstance(query, str) else query
    first, second = [
        (await service.search(asked, options, collection=name, timeout_s=10.0)).results[0]
        for name in COLLECTIONS
    ]
    for one in (first, second):
        for hit in one.hits:
            hit.explanation = hit.explanation and replace(hit.explanation, shard=0)
    assert list(first.hits) == list(second.hits)
    return first


NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORDS = "red green blue round square small large glass steel paper river stone cloud".split()
NAMED = {"i005", "i077", "i205"}


def _shapes() -> list[c.Item]:
    rng = np.random.default_rng(11)
    items = []
    for number in range(300):
        attributes: dict[str, c.AttributeValue] = {
            "shape": str(rng.choice(["round", "square", "flat"])),
            "price": float(rng.integers(1, 50)),
            "sold": int(rng.integers(0, 1_000)),
        }
        if number % 3:
            attributes["tags"] = rng.choice(["a", "b", "c", "d"], 2).tolist()
        if number % 4:
            attributes["added"] = NOW - timedelta(days=int(rng.integers(-50, 900)))
        name = f"i{number:03d}"
        title = "Red glass stone" if name in NAMED else f"Item {number}"
        text = " ".join(rng.choice(WORDS, int(rng.integers(2, 7))))
        items.append(c.Item(id=name, title=title, text=text, attributes=attributes))
    return items


# Three hundred items of all kinds of attributes; three of them have a name.
SHAPES = Catalogue(_shapes())
