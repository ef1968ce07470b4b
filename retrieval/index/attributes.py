"""The attributes of a segment, and vector searches filtered by them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nearline.contract import AttributeValue, Filter, PlanStrategy, Scalar
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.filter_cache import FilterCache
from retrieval.index.filtering.planner import FilteredSearch, Matches, calibrate
from retrieval.index.item_table import ItemTable
from retrieval.index.protocols import FilteredVectors, WordIndex
from retrieval.index.text_conditions import text_matches
from retrieval.index.vectors.vector_index import VectorIndex
from retrieval.protocols.shard import FieldCounts, ShardFilterPlan


class SegmentAttributes:
    """Evaluates filters on a segment, and runs filtered searches of its vectors.

    filtered: The filtered vector search.

    Args:
        load: Returns the attributes, one record per document; called by the first use.
        filtered: The filtered vector search.
        chunks: Number of rows.
        words_reason: Describes a filtered word search, with a place for the number of matches.
    """

    def __init__(
        self,
        load: Callable[[], FilterCache],
        filtered: FilteredVectors,
        *,
        chunks: int,
        words_reason: str,
    ) -> None:
        self.filtered = filtered
        self._load = load
        self._loaded: FilterCache | None = None
        self._chunks = chunks
        self._words_reason = words_reason

    def matches(self, filter: Filter) -> Matches:
        """Returns the documents and rows that match a filter, whether alive or not.

        Raises: InvalidRequest: the filter names an unknown attribute or a value of another kind.
        """
        return self._cache().matches(filter)

    def first_values(self, field: str, documents: NDArray[np.int64]) -> list[Scalar]:
        """Returns the (first) value of an attribute in each document; None if it has none."""
        return self._cache().table.first_values(field, documents)

    def values(self, field: str, documents: NDArray[np.int64]) -> list[AttributeValue]:
        """Returns the value of an attribute in each document; see `AttributeTable.values`."""
        return self._cache().table.values(field, documents)

    def counts(self, field: str, matching: NDArray[np.bool_]) -> FieldCounts:
        """Counts the values of an attribute among documents; see `AttributeTable.counts`."""
        return self._cache().table.counts(field, matching)

    def most_values(self, field: str, matching: NDArray[np.bool_]) -> int:
        """Returns a number that the values do not exceed; see `AttributeTable.most_values`."""
        return self._cache().table.most_values(field, matching)

    def word_plan(self, matches: Matches) -> ShardFilterPlan:
        """Describes a filtered word search: every match is scored, and nothing else."""
        strategy = PlanStrategy.EXACT if matches.count else PlanStrategy.EMPTY
        reason = self._words_reason.format(matches.count)
        return ShardFilterPlan(strategy, matches.count, self._chunks, 0, reason)

    def _cache(self) -> FilterCache:
        # Two threads may do the same work, but neither waits for the other.
        loaded = self._loaded
        if loaded is None:
            loaded = self._loaded = self._load()
        return loaded


def snapshot_attributes(
    table: AttributeTable, items: ItemTable, index: VectorIndex, words: WordIndex | None = None
) -> SegmentAttributes:
    """Returns the attributes of a snapshot segment.

    Args:
        table: Attributes, one record per document.
        items: The documents, in the same order.
        index: The vectors; a short calibration measures when an exact scan is faster.
        words: The word index; None if the snapshot has none.
    """
    cache = FilterCache(table, items.first_rows, text_matches(items, words))
    return SegmentAttributes(
        lambda: cache,
        FilteredSearch(index, items.chunks, exact_limit=calibrate(index)),
        chunks=items.chunks,
        words_reason="of the chunks with a word of the query, those among {:,} matches",
    )
