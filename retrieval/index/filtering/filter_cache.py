"""What matches each filter that was asked for lately."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from nearline.filters import Filter
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.planner import Matches

MAX_BYTES = 64 << 20
# Beyond, the row numbers take more memory than they save time.
_MAX_ROWS_KEPT = 65_536


class FilterCache:
    """Matches by filter, those used longest ago let go of first; safe to share among threads.

    Args:
        table: Attributes of the shard.
        first_rows: (documents + 1,) int64: the index row of each document's first chunk, and the
            number of rows.
        max_bytes: Most memory that matches take.
    """

    def __init__(
        self,
        table: AttributeTable,
        first_rows: NDArray[np.int64],
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._table = table
        self._chunks_of = np.diff(first_rows)
        self._one_each = bool((self._chunks_of == 1).all())
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Filter, Matches] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def matches(self, filter: Filter) -> Matches:
        """Returns what matches a filter.

        Raises: InvalidRequest: an attribute that does not exist, or a value of another kind.
        """
        # Before the look-up: equal filters may differ in kind, since True equals 1 in Python.
        self._table.check(filter)
        with self._lock:
            kept = self._kept.get(filter)
            if kept is not None:
                self._kept.move_to_end(filter)
                return kept
        # Outside the lock: two threads may find the same once, none waits for another's filter.
        found = self._find(filter)
        with self._lock:
            if filter not in self._kept and found.bytes <= self._max_bytes:
                self._kept[filter] = found
                self._bytes += found.bytes
                while self._bytes > self._max_bytes:
                    self._bytes -= self._kept.popitem(last=False)[1].bytes
        return found

    def _find(self, filter: Filter) -> Matches:
        documents = self._table.matching(filter)
        chunks = documents if self._one_each else np.repeat(documents, self._chunks_of)
        count = int(np.count_nonzero(chunks))
        return Matches(
            documents,
            chunks,
            np.packbits(chunks, bitorder="little"),
            count,
            np.flatnonzero(chunks) if count <= _MAX_ROWS_KEPT else None,
        )
