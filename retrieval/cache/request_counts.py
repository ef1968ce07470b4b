"""Counts requests of each list, to compute the most requested ones ahead for a new snapshot."""

from __future__ import annotations

import heapq

_MINUTE_US = 60_000_000


class RequestCounts:
    """Counts requests by collection and list; counts are halved every minute.

    Args:
        limit: Largest number of lists in a collection, >= 2. Beyond it, the half with the fewest
            requests is dropped.
    """

    def __init__(self, limit: int = 4_096) -> None:
        self._limit = limit
        self._counts: dict[str, dict[str, int]] = {}
        self._halved_us = 0

    def add(self, collection: str, of: str, now_us: int) -> None:
        """Counts a request."""
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
        """Returns the n most requested lists; those with equal counts in alphabetical order."""
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
