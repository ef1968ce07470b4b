"""How often each list is asked for: what to compute for a new snapshot before it is in force."""

from __future__ import annotations

import heapq

_MINUTE_US = 60_000_000


class RequestCounts:
    """Counts, by collection, what lists are asked for; a count is halved every minute.

    Args:
        limit: Most names of a collection that are counted, >= 2; with one more, those that were
            asked for least are forgotten, half of all.
    """

    def __init__(self, limit: int = 4_096) -> None:
        self._limit = limit
        self._counts: dict[str, dict[str, int]] = {}
        self._halved_us = 0

    def add(self, collection: str, of: str, now_us: int) -> None:
        """Counts one."""
        if now_us >= self._halved_us + _MINUTE_US:
            self._halve(now_us)
        counts = self._counts.get(collection)
        if counts is None:
            counts = self._counts[collection] = {}
        counts[of] = counts.get(of, 0) + 1
        if len(counts) > self._limit:
            most = self.most(collection, self._limit // 2)
            self._counts[collection] = {name: counts[name] for name in most}

    def most(self, collection: str, n: int) -> list[str]:
        """Returns the n asked for most; of equals those that come first in the alphabet."""
        counts = self._counts.get(collection, {})
        return heapq.nsmallest(n, counts, key=lambda name: (-counts[name], name))

    def _halve(self, now_us: int) -> None:
        minutes = (now_us - self._halved_us) // _MINUTE_US
        if self._halved_us:
            self._counts = {
                collection: {name: left for name, n in counts.items() if (left := n >> minutes)}
                for collection, counts in self._counts.items()
            }
        self._halved_us = now_us
