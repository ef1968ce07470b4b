"""Finds the nearest rows of a vector in Milvus, even if a graph search returns too few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.milvus.layout import MAX_ROWS, MilvusHit
from retrieval.milvus.reader import MilvusReader

# Maximum width of a graph search in Milvus.
_MAX_EF = 32_768
_WIDEN = 4


class VectorIndexInfo(NamedTuple):
    """Index and size of a collection.

    version: Version of the server.
    flat: Whether the index compares every vector; otherwise it is HNSW.
    ef_search: Default width of a graph search.
    chunks: Number of chunks of the snapshot.
    chunks_per_document: Rows to request per document at first.
    lite: Whether the server is Milvus Lite.
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
        reader: Reads the collection.
        info: Index and size of the collection.
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
        """Returns the best rows of each vector; fewer than requested only if no more match.

        Args:
            vectors: (n, d) float32.
            ask: Number of rows to return per vector.
            expression: Condition on the rows; empty matches all.
            fields: Fields to read of each row.
            ef_search: Width of the graph search; it is increased as needed.
            deadline: Time of the running loop; None uses the timeout of the client.
        """
        if self._info.flat:
            return await self._reader.search(vectors, ask, expression, fields, None, deadline)
        # Milvus rejects a width below the number of rows.
        ef = max(ef_search, ask)
        matches: int | None = None
        if self._info.lite and expression:
            # Servers widen the search if few rows match; Lite always looks at `ef` rows.
            matches = await self._reader.count(expression, deadline)
            ef = self._widened(ef, matches)
        results = await self._reader.search(vectors, ask, expression, fields, ef, deadline)
        if min(map(len, results)) == ask:
            return results
        # Either no more rows match, or non-matching rows cut off the graph search.
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
        """Returns the width that visits as many matches as `ef` would if all rows matched."""
        return min(max(ef, ef * self._info.chunks // max(1, matches)), _MAX_EF)

    async def _scan(
        self,
        vector: NDArray[np.float32],
        ask: int,
        expression: str,
        fields: Sequence[str],
        deadline: float | None,
    ) -> list[MilvusHit]:
        """Returns the best rows by comparing every vector."""
        found: list[MilvusHit] = []
        async for page in self._reader.pages(expression, [*fields, "vector"], deadline):
            for row in page:
                score = np.float32(np.asarray(row["vector"], np.float32) @ vector)
                found.append(MilvusHit(row["key"], float(score), row))
        return sorted(found, key=lambda hit: (-hit.score, hit.key))[:ask]
