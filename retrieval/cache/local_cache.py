"""The cache of lists in this process."""

from __future__ import annotations

from datetime import timedelta

from theine import Cache

from retrieval.cache.cached_list import CacheEntry, ListKey


class LocalCache:
    """Keeps the lists that are requested often, not those requested last (W-TinyLFU).

    Args:
        capacity: Largest number of entries, plus a tenth of that for entries that are kept warm.
        keep_s: Time after which an entry is dropped, whatever its own lifetime; >= 1.
    """

    def __init__(self, capacity: int, keep_s: float) -> None:
        self._entries: Cache[ListKey, CacheEntry] = Cache(capacity)
        self._keep = timedelta(seconds=keep_s)
        # A full cache does not admit entries that were not requested yet, so they wait here, oldest
        # first.
        self._warm: dict[ListKey, CacheEntry] = {}
        self._max_warm = max(capacity // 10, 1)

    def __len__(self) -> int:
        """Number of entries; those that are kept warm may count twice."""
        return len(self._entries) + len(self._warm)

    def get(self, key: ListKey) -> CacheEntry | None:
        """Returns an entry, or None."""
        entry = self._entries.get(key)[0]
        if entry is None and (entry := self._warm.get(key)) is not None:
            # After enough requests, the cache admits the entry.
            self._entries.set(key, entry, self._keep)
        return entry

    def put(self, key: ListKey, entry: CacheEntry) -> None:
        """Stores an entry, unless a newer one is stored."""
        stored = self.get(key)
        if stored is None or stored.computed_us <= entry.computed_us:
            self._entries.set(key, entry, self._keep)
            if key in self._warm:
                self._warm[key] = entry

    def keep_warm(self, key: ListKey, entry: CacheEntry) -> None:
        """Stores an entry until newer warm ones replace it, whether it is requested or not."""
        self._warm.pop(key, None)
        self._warm[key] = entry
        if len(self._warm) > self._max_warm:
            del self._warm[next(iter(self._warm))]

    def close(self) -> None:
        """Drops all entries and closes the cache."""
        self._warm.clear()
        self._entries.clear()
        self._entries.close()
