"""The attributes of live documents as Arrow columns, filtered exactly like those of the snapshot.

Every column contains lists, since a live document may have a list where documents of the snapshot
have single values. Values of another kind than their column are ignored by filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.contract import Attributes, PlanStrategy
from nearline.v1 import snapshot_pb2
from retrieval.index.attributes import SegmentAttributes
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.filter_cache import FilterCache
from retrieval.index.filtering.planner import Matches
from retrieval.index.protocols import WordIndex
from retrieval.index.text_conditions import text_matches
from retrieval.index.vectors.vector_index import Neighbours, SearchParams
from retrieval.live.documents import DocumentsView, LiveItem
from retrieval.live.vectors import LiveIndex
from retrieval.protocols.shard import ShardFilterPlan

# Small, because every view converts the documents after the last block. If there are many blocks,
# they are merged, because each block costs every filter some calls.
_BLOCK_DOCUMENTS = 256
_MAX_BLOCKS = 8
_Field = snapshot_pb2.AttributeField
# The exact Python types of values that fit a column: bool does not count as int.
_KINDS: dict[snapshot_pb2.AttributeField.Kind, tuple[frozenset[type], Any]] = {
    _Field.KIND_STRING: (frozenset({str}), pa.string()),
    _Field.KIND_INT: (frozenset({int}), pa.int64()),
    _Field.KIND_DOUBLE: (frozenset({float, int}), pa.float64()),
    _Field.KIND_BOOL: (frozenset({bool}), pa.bool_()),
    _Field.KIND_TIME: (frozenset({datetime}), pa.timestamp("us", "UTC")),
}


class LiveColumns:
    """Columns of the first documents, built in blocks as documents are added; one writer.

    Args:
        fields: The attributes in the manifest; filters cannot use others.
    """

    def __init__(self, fields: Sequence[snapshot_pb2.AttributeField]) -> None:
        self._fields = [_Field(name=one.name, kind=one.kind, is_list=True) for one in fields]
        self._blocks: list[pa.Table] = []
        self._documents = 0

    def catch_up(self, items: Sequence[LiveItem]) -> None:
        """Converts all complete blocks; views convert the rest when they need it."""
        while len(items) - self._documents >= _BLOCK_DOCUMENTS:
            stop = self._documents + _BLOCK_DOCUMENTS
            block = _block(self._fields, items[self._documents : stop])
            blocks = [*self._blocks, block]
            if len(blocks) > _MAX_BLOCKS:
                blocks = [pa.concat_tables(blocks).combine_chunks()]
            self._blocks, self._documents = blocks, stop

    def view(
        self,
        items: Sequence[LiveItem],
        of: DocumentsView,
        index: LiveIndex,
        words: WordIndex | None = None,
    ) -> SegmentAttributes:
        """Returns the attributes of the documents of a view; the first filter assembles them.

        Args:
            items: The documents of the view, and possibly more.
            of: The view.
            index: The vectors of the view.
            words: The words of the view; None if the snapshot has no word index.
        """
        of_text = text_matches(of, words)
        fields, blocks, rest = self._fields, self._blocks, items[self._documents : of.documents]

        def assemble() -> FilterCache:
            columns = pa.concat_tables([*blocks, _block(fields, rest)])
            return FilterCache(
                AttributeTable(columns, fields, of.documents), of.first_rows, of_text
            )

        return SegmentAttributes(
            assemble,
            LiveFilteredVectors(index),
            chunks=of.chunks,
            words_reason="of the live chunks with a word of the query, those among {:,}",
        )


class LiveFilteredVectors:
    """Searches live vectors under a filter; the index chooses the method.

    Args:
        index: The vectors.
    """

    def __init__(self, index: LiveIndex) -> None:
        self._index = index

    def search(
        self, vectors: NDArray[np.float32], k: int, params: SearchParams, matches: Matches
    ) -> tuple[Neighbours, ShardFilterPlan]:
        """Returns the k best matches per query, and the plan; see `FilteredSearch.search`."""
        found, width = self._index.search_planned(vectors, k, params, matches.bitmap)
        rows = self._index.describe().rows
        reason = f"{matches.count:,} of {rows:,} live chunks match; "
        strategy = PlanStrategy.EXACT
        if matches.count == 0:
            strategy, reason = PlanStrategy.EMPTY, "no live chunk matches"
        elif width:
            strategy = PlanStrategy.BITMAP
            reason += f"graphs were searched with ef_search {width}; the newest rows were compared"
        else:
            reason += "every match was compared"
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
        elements = value if isinstance(value, list | tuple) else (value,)
        valid = [each for each in elements if type(each) in fitting]
        values.append(valid if valid or not elements else None)
    if field.kind == _Field.KIND_DOUBLE:
        # Plus zero turns -0.0 into 0.0, as in the columns of a snapshot.
        values = [v if v is None else [float(each) + 0.0 for each in v] for v in values]
    return pa.array(values, pa.list_(element))
