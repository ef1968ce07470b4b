"""The attributes of live documents as Arrow columns, so that a filter means what it means beside.

Every column is one of lists: a live document may bring a list where those of the snapshot have
single values. A value of another kind than the column's cannot be filtered on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.contract import Attributes, Filter, PlanStrategy, Scalar
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.filter_cache import FilterCache
from retrieval.index.filtering.planner import Matches
from retrieval.index.vectors.vector_index import Neighbours, SearchParams
from retrieval.live.documents import DocumentsView, LiveItem
from retrieval.live.vectors import LiveIndex
from retrieval.protocols.shard import FieldCounts, ShardFilterPlan

# Small, since a view converts what is not in a block; many blocks become one, since each costs
# every filter some calls.
_BLOCK_DOCUMENTS = 256
_MOST_BLOCKS = 8
_Field = snapshot_pb2.AttributeField
# Types of values that fit a column, exactly: a bool is no int here.
_KINDS: dict[snapshot_pb2.AttributeField.Kind, tuple[frozenset[type], Any]] = {
    _Field.KIND_STRING: (frozenset({str}), pa.string()),
    _Field.KIND_INT: (frozenset({int}), pa.int64()),
    _Field.KIND_DOUBLE: (frozenset({float, int}), pa.float64()),
    _Field.KIND_BOOL: (frozenset({bool}), pa.bool_()),
    _Field.KIND_TIME: (frozenset({datetime}), pa.timestamp("us", "UTC")),
}


class LiveColumns:
    """Columns of the first documents, made in blocks as documents come; one writer.

    Args:
        fields: The attributes that the manifest names; others cannot be filtered on.
    """

    def __init__(self, fields: Sequence[snapshot_pb2.AttributeField]) -> None:
        self._fields = [_Field(name=one.name, kind=one.kind, is_list=True) for one in fields]
        self._blocks: list[pa.Table] = []
        self._documents = 0

    def catch_up(self, items: Sequence[LiveItem]) -> None:
        """Takes in the whole blocks there are; the rest is converted by the views that ask."""
        while len(items) - self._documents >= _BLOCK_DOCUMENTS:
            stop = self._documents + _BLOCK_DOCUMENTS
            block = _block(self._fields, items[self._documents : stop])
            blocks = [*self._blocks, block]
            if len(blocks) > _MOST_BLOCKS:
                blocks = [pa.concat_tables(blocks).combine_chunks()]
            self._blocks, self._documents = blocks, stop

    def view(
        self, items: Sequence[LiveItem], of: DocumentsView, index: LiveIndex
    ) -> LiveAttributes:
        """Returns the attributes of the documents of a view.

        Args:
            items: Those documents, and possibly more.
            of: The view.
            index: Their vectors.
        """
        rest = items[self._documents : of.documents]
        return LiveAttributes(self._fields, self._blocks, rest, of, index)


class LiveAttributes:
    """`AttributeValues` at one moment; columns are put together when the first filter comes.

    Args:
        fields: What can be filtered on, all of them lists.
        blocks: Columns of the first documents. rest: The documents after them.
        of: All documents.
        index: Their vectors.
    """

    def __init__(
        self,
        fields: Sequence[snapshot_pb2.AttributeField],
        blocks: Sequence[pa.Table],
        rest: Sequence[LiveItem],
        of: DocumentsView,
        index: LiveIndex,
    ) -> None:
        self._fields = fields
        self._blocks = blocks
        self._rest = rest
        self._of = of
        self._made: tuple[AttributeTable, FilterCache] | None = None
        self.filtered = LiveFilteredVectors(index)

    def matches(self, filter: Filter) -> Matches:
        """Returns what matches, whether it is alive or not.

        Raises: InvalidRequest: an attribute that does not exist, or a value of another kind.
        """
        return self._columns()[1].matches(filter)

    def first_values(self, field: str, documents: NDArray[np.int64]) -> list[Scalar]:
        """Returns the (first) value of an attribute in each document, None where there is none."""
        return self._columns()[0].first_values(field, documents)

    def counts(self, field: str, matching: NDArray[np.bool_]) -> FieldCounts:
        """Counts the values of an attribute among documents; see `AttributeTable.counts`."""
        return self._columns()[0].counts(field, matching)

    def word_plan(self, matches: Matches) -> ShardFilterPlan:
        """Says how words are searched under a filter: only matches are scored, all of them."""
        strategy = PlanStrategy.EXACT if matches.count else PlanStrategy.EMPTY
        reason = f"of the live chunks with a word of the query, those among {matches.count:,}"
        return ShardFilterPlan(strategy, matches.count, self._of.chunks, 0, reason)

    def _columns(self) -> tuple[AttributeTable, FilterCache]:
        # Two threads may make the same once; neither waits for the other.
        made = self._made
        if made is None:
            parts = [*self._blocks, _block(self._fields, self._rest)]
            table = AttributeTable(pa.concat_tables(parts), self._fields, self._of.documents)
            made = self._made = table, FilterCache(table, self._of.first_rows)
        return made


class LiveFilteredVectors:
    """Searches live vectors under a filter; the index itself sees what pays.

    Args:
        index: The vectors.
    """

    def __init__(self, index: LiveIndex) -> None:
        self._index = index

    def search(
        self, vectors: NDArray[np.float32], k: int, params: SearchParams, matches: Matches
    ) -> tuple[Neighbours, ShardFilterPlan]:
        """Finds the k best matches per query, and tells how; see `FilteredSearch.search`."""
        found, width = self._index.search_planned(vectors, k, params, matches.bitmap)
        rows = self._index.describe().rows
        reason = f"{matches.count:,} of {rows:,} live chunks match; "
        strategy = PlanStrategy.EXACT
        if matches.count == 0:
            strategy, reason = PlanStrategy.EMPTY, "no live chunk matches"
        elif width:
            strategy = PlanStrategy.BITMAP
            reason += f"graphs were searched with ef_search {width}, the newest rows compared"
        else:
            reason += "each was compared"
        return found, ShardFilterPlan(strategy, matches.count, rows, width, reason)


def _block(fields: Sequence[snapshot_pb2.AttributeField], items: Sequence[LiveItem]) -> pa.Table:
    attributes = [item.attributes for item in items]
    return pa.table({field.name: _column(field, attributes) for field in fields})


def _column(field: snapshot_pb2.AttributeField, attributes: Sequence[Attributes]) -> pa.Array:
    fitting, element = _KINDS[field.kind]
    values: list[list[Any] | None] = []
    for one in attributes:
        value = one.get(field.name)
        if value is None:
            values.append(None)
            continue
        several = value if isinstance(value, list | tuple) else (value,)
        fit = [each for each in several if type(each) in fitting]
        values.append(fit if fit or not several else None)
    if field.kind == _Field.KIND_DOUBLE:
        # Plus zero: one zero only, as in the columns of a snapshot.
        values = [v if v is None else [float(each) + 0.0 for each in v] for v in values]
    return pa.array(values, pa.list_(element))
