"""A cache of the documents that match recent filters."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nearline.filters import Filter
from retrieval.index.filtering.attribute_table import AttributeTable, TextMatches, without_texts
from retrieval.index.filtering.planner import Matches

MAX_BYTES = 64 << 20
# Of an entry without its matches: its objects, its digest and its place in the table.
_ENTRY_BYTES = 1_024
# Above this, row numbers cost more memory than they save time.
_MAX_ROW_NUMBERS = 65_536


class FilterCache:
    """Matches by filter, evicting the least recently used; safe to share among threads.

    table: Attributes of the shard.

    Args:
        table: Attributes of the shard.
        first_rows: (documents + 1,) int64: the index row of each document's first chunk, and
            finally the number of rows.
        of_text: Called for each filter; returns what tests its conditions on texts.
        max_bytes: Maximum memory of all entries.
    """

    def __init__(
        self,
        table: AttributeTable,
        first_rows: NDArray[np.int64],
        of_text: Callable[[], TextMatches] = lambda: without_texts,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.table = table
        self._of_text = of_text
        self._chunks_of = np.diff(first_rows)
        self._one_each = bool((self._chunks_of == 1).all())
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Matches] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def matches(self, filter: Filter) -> Matches:
        """Returns the documents and rows that match a filter.

        Raises: InvalidRequest: the filter names an unknown attribute or a value of another kind, or
            phrases that too many documents may have. Unsupported: it has a condition on texts, and
            there is no word index. DeadlineExceeded: the result is no longer needed.
        """
        self.table.check(filter)
        # Not the filter itself: its values may take more memory than its matches.
        key = hashlib.blake2b(repr(filter).encode(), digest_size=16).digest()
        with self._lock:
            cached = self._entries.get(key)
            if cached is not None:
                self._entries.move_to_end(key)
                return cached
        # Outside the lock: two threads may do the same work, but no filter waits for a different
        # filter.
        found = self._evaluate(filter)
        with self._lock:
            if key not in self._entries and found.bytes + _ENTRY_BYTES <= self._max_bytes:
                self._entries[key] = found
                self._bytes += found.bytes + _ENTRY_BYTES
                while self._bytes > self._max_bytes:
                    self._bytes -= self._entries.popitem(last=False)[1].bytes + _ENTRY_BYTES
        return found

    def _evaluate(self, filter: Filter) -> Matches:
        documents = self.table.matching(filter, self._of_text())
        chunks = documents if self._one_each else np.repeat(documents, self._chunks_of)
        count = int(np.count_nonzero(chunks))
        return Matches(
            documents,
            chunks,
            np.packbits(chunks, bitorder="little"),
            count,
            np.flatnonzero(chunks) if count <= _MAX_ROW_NUMBERS else None,
        )
