"""The cache of hot lists in this process."""

from __future__ import annotations

from datetime import timedelta

from theine import Cache

from retrieval.cache.cached_list import ListKey
from retrieval.cache.freshness import CacheEntry


class LocalCache:
    """Keeps what is asked for often (W-TinyLFU), not what was asked for last.

    Args:
        capacity: Most entries; a tenth as many more may be kept warm.
        keep_s: Time after which an entry is forgotten, whatever it says of itself; >= 1.
    """

    def __init__(self, capacity: int, keep_s: float) -> None:
        self._entries: Cache[ListKey, CacheEntry] = Cache(capacity)
        self._keep = timedelta(seconds=keep_s)
        # What nobody has asked for yet is not let into a full cache: it waits beside it. Oldest
        # first.
        self._warm: dict[ListKey, CacheEntry] = {}
        self._most_warm = max(capacity // 10, 1)

    def __len__(self) -> int:
        """Number of entries; those that are kept warm may count twice."""
        return len(self._entries) + len(self._warm)

    def get(self, key: ListKey) -> CacheEntry | None:
        """Returns an entry; None: there is none."""
        entry = self._entries.get(key)[0]
        if entry is None and (entry := self._warm.get(key)) is not None:
            # Asked for often enough, it is let in.
            self._entries.set(key, entry, self._keep)
        return entry

    def put(self, key: ListKey, entry: CacheEntry) -> None:
        """Keeps an entry, unless there is a newer one."""
        held = self.get(key)
        if held is None or held.computed_us <= entry.computed_us:
            self._entries.set(key, entry, self._keep)
            if key in self._warm:
                self._warm[key] = entry

    def keep_warm(self, key: ListKey, entry: CacheEntry) -> None:
        """Keeps an entry until others have taken its place here, asked for or not."""
        self._warm.pop(key, None)
        self._warm[key] = entry
        if len(self._warm) > self._most_warm:
            del self._warm[next(iter(self._warm))]

    def close(self) -> None:
        """Releases everything."""
        self._warm.clear()
        self._entries.clear()
        self._entries.close()
