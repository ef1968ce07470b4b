"""The rows of a Milvus collection that are nearest to a vector, also where a graph comes short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.milvus.layout import MAX_ROWS, MilvusHit
from retrieval.milvus.reader import MilvusReader

# The widest search of a graph that Milvus allows.
_MAX_EF = 32_768
_WIDEN = 4


class VectorIndexInfo(NamedTuple):
    """What searches must know of a collection.

    version: Of the Milvus. flat: Its index compares every vector; else it is HNSW. ef_search: Width
    where a request names none. chunks: Of the snapshot. chunks_per_document: Rows to ask for, at
    first, for each document wanted. lite: It is Milvus Lite.
    """

    version: str
    flat: bool
    ef_search: int
    chunks: int
    chunks_per_document: int
    lite: bool = False


class VectorLeg:
    """Finds rows by vector.

    Args:
        reader: The collection.
        info: What it is.
    """

    def __init__(self, reader: MilvusReader, info: VectorIndexInfo) -> None:
        self._reader = reader
        self._info = info

    async def search(
        self,
        vectors: NDArray[np.float32],
        ask: int,
        expression: str,
        fields: Sequence[str],
        ef_search: int,
        deadline: float | None,
    ) -> list[list[MilvusHit]]:
        """Finds the best rows for each vector, fewer than asked for only where there are no more.

        Args:
            vectors: (n, d).
            ask: Rows.
            expression: What they must meet; empty: nothing.
            fields: To read of each.
            ef_search: Width of a search of the graph; it goes wider where it must.
            deadline: Time of the loop.
        """
        if self._info.flat:
            return await self._reader.search(vectors, ask, expression, fields, None, deadline)
        # Never fewer than asked for: Milvus refuses that.
        ef = max(ef_search, ask)
        matches: int | None = None
        if self._info.lite and expression:
            # Servers go wider by themselves where few match; Lite looks at `ef` rows, whatever.
            matches = await self._reader.count(expression, deadline)
            ef = self._widened(ef, matches)
        results = await self._reader.search(vectors, ask, expression, fields, ef, deadline)
        if min(map(len, results)) == ask:
            return results
        # All there are, or the graph had no way to the others past rows that do not match.
        if matches is None:
            matches = await self._reader.count(expression, deadline)
        wanted = min(ask, matches)
        short = [place for place, found in enumerate(results) if len(found) < wanted]
        if short:
            some, ef = vectors[short], self._widened(_WIDEN * ef, matches)
            wide = await self._reader.search(some, ask, expression, fields, ef, deadline)
            for place, found in zip(short, wide, strict=True):
                results[place] = found
                if len(found) < wanted and matches <= MAX_ROWS:
                    results[place] = await self._scan(
                        vectors[place], ask, expression, fields, deadline
                    )
        return results

    def _widened(self, ef: int, matches: int) -> int:
        """Returns the width that looks at as many matches as `ef` does where all rows match."""
        return min(max(ef, ef * self._info.chunks // max(1, matches)), _MAX_EF)

    async def _scan(
        self,
        vector: NDArray[np.float32],
        ask: int,
        expression: str,
        fields: Sequence[str],
        deadline: float | None,
    ) -> list[MilvusHit]:
        """Reads every vector, and compares it."""
        found: list[MilvusHit] = []
        async for page in self._reader.pages(expression, [*fields, "vector"], deadline):
            for row in page:
                score = np.float32(np.asarray(row["vector"], np.float32) @ vector)
                found.append(MilvusHit(row["key"], float(score), row))
        return sorted(found, key=lambda one: (-one.score, one.key))[:ask]
