"""Queries that people often search for, from recorded requests, to complete what others type."""

from __future__ import annotations

import asyncio
import heapq
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic
from retrieval.index.lexical.text_analysis import split_words
from retrieval.rollout.collections import ServedCollections
from retrieval.search.query_syntax import parse_text
from retrieval.snapshots.poller import Poller

# As many as the recorder keeps.
MAX_REQUESTS = 10_000
_INTERVAL_S = 300.0
_LAST_CHARACTER = "\U0010ffff"
_log = logging.getLogger(__name__)


class _Query(NamedTuple):
    """A query. key: Its words, by which it is found. times: How often it was recorded."""

    key: str
    text: str
    times: int


class PopularQueries:
    """The recorded queries of the served collections; they are read again every five minutes.

    Belongs to the event loop. Requests with a filter are left out: it may say what only their
    callers could see, as that of a tenant does. If the store fails, the queries stay as they were.

    Args:
        store: Store with recorded requests.
        collections: The collections served.
        least: How often a query must be recorded to be shown to others; 0 disables all this.
    """

    def __init__(self, store: Store, collections: ServedCollections, least: int) -> None:
        self._store = store
        self._collections = collections
        self._least = least
        self._queries: dict[str, Sequence[_Query]] = {}
        self._poller = Poller(
            self.read, _INTERVAL_S, "recorded queries cannot be read", at_once=True
        )

    def start(self) -> None:
        """Starts reading; requires a running event loop."""
        if self._least:
            self._poller.start()

    async def close(self) -> None:
        """Stops reading."""
        await self._poller.close()

    def complete(self, collection: str, text: str, limit: int) -> list[c.PopularQuery]:
        """Returns queries that begin with a text, the most frequent first, then by their words.

        Args:
            collection: Name of the collection.
            text: What was typed.
            limit: Most queries.
        """
        queries = self._queries.get(collection, ())
        typed = " ".join(split_words(text))
        if not queries or not typed:
            return []
        if not text[-1:].isalnum():
            typed += " "  # The last word is complete.
        first = bisect_left(queries, typed, key=_key)
        stop = bisect_left(queries, typed + _LAST_CHARACTER, first, key=_key)
        best = heapq.nsmallest(limit, queries[first:stop], key=lambda one: (-one.times, one.key))
        return [c.PopularQuery(text=one.text, count=one.times) for one in best]

    async def read(self) -> None:
        """Reads the recorded queries of all collections."""
        names = [served.name for served in self._collections.in_force]
        self._queries = {name: one for name, one in self._queries.items() if name in names}
        for name in names:
            try:
                self._queries[name] = await asyncio.to_thread(self._read_now, name)
            except (NearlineError, OSError) as error:
                _log.warning(
                    "recorded queries cannot be read; they stay as they were",
                    extra={"collection": name, "reason": str(error)},
                )

    def _read_now(self, collection: str) -> Sequence[_Query]:
        return popular_queries(read_traffic(self._store, collection, MAX_REQUESTS), self._least)


def popular_queries(requests: Iterable[RecordedRequest], least: int) -> list[_Query]:
    """Returns the queries that were recorded at least so often, in the order of their words.

    Queries of the same words count together, and are shown as they were last written. Those with
    phrases or excluded words are left out: the same words without these signs ask for other items.

    Args:
        requests: Newest first.
        least: >= 1.
    """
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for request in requests:
        text = " ".join(request.search.query.text.split())
        if not text or len(text) > c.MAX_TYPED_CHARACTERS:
            continue
        if request.search.options.HasField("filter"):
            continue
        if not request.search.options.plain_text and _has_conditions(text):
            continue
        # Of a prefix that somebody searched for, others learn nothing.
        key = "" if text.endswith("*") else " ".join(split_words(text))
        if key:
            counts[key] += 1
            shown.setdefault(key, text)
    return sorted(_Query(key, shown[key], n) for key, n in counts.items() if n >= least)


def _has_conditions(text: str) -> bool:
    try:
        return parse_text(text, "query").condition is not None
    except InvalidRequest:  # No hit can have been found by it.
        return True


def _key(query: _Query) -> str:
    return query.key
