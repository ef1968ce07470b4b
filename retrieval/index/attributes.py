"""The attributes of a snapshot segment, and vector searches filtered by them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter, PlanStrategy, Scalar
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.filter_cache import FilterCache
from retrieval.index.filtering.planner import FilteredSearch, Matches, calibrate
from retrieval.index.item_table import ItemTable
from retrieval.index.vectors.vector_index import VectorIndex
from retrieval.protocols.shard import FieldCounts, ShardFilterPlan


class SnapshotAttributes:
    """Evaluates filters on a snapshot segment, and runs filtered searches of its vectors.

    Args:
        table: Attributes, one record per document.
        items: The documents, in the same order.
        index: The vectors; a short calibration measures when an exact scan is faster.
    """

    def __init__(self, table: AttributeTable, items: ItemTable, index: VectorIndex) -> None:
        self._table = table
        self._chunks = items.chunks
        self._cache = FilterCache(table, items.first_rows)
        self.filtered = FilteredSearch(index, items.chunks, exact_limit=calibrate(index))

    def matches(self, filter: Filter) -> Matches:
        """Returns the documents and rows that match a filter.

        Raises: InvalidRequest: the filter names an unknown attribute or a value of another kind.
        """
        return self._cache.matches(filter)

    def first_values(self, field: str, documents: NDArray[np.int64]) -> list[Scalar]:
        """Returns the (first) value of an attribute in each document; None if it has none."""
        return self._table.first_values(field, documents)

    def counts(self, field: str, matching: NDArray[np.bool_]) -> FieldCounts:
        """Counts the values of an attribute among documents; see `AttributeTable.counts`."""
        return self._table.counts(field, matching)

    def word_plan(self, matches: Matches) -> ShardFilterPlan:
        """Describes a filtered word search: every match is scored, and nothing else."""
        strategy = PlanStrategy.EXACT if matches.count else PlanStrategy.EMPTY
        reason = f"of the chunks with a word of the query, those among {matches.count:,} matches"
        return ShardFilterPlan(strategy, matches.count, self._chunks, 0, reason)
