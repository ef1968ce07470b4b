"""Events of requests, for observers such as monitors; observers must be quick and never raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from nearline import contract as c
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch


class SearchEvent(NamedTuple):
    """A search by one query that every shard answered.

    collection: The snapshot that answered. arm: The arm of the traffic split in which it serves;
    None without a split. batch: The query as sent to the shards; None if the answer was cached.
    watermark: Progress of live changes in the hits, as callers see it. list_id: Id of the reply.
    personal: Whether the taste of a user ordered the hits.
    """

    collection: ServedCollection
    arm: c.Arm | None
    query: c.Query
    options: c.SearchOptions
    batch: QueryBatch | None
    hits: Sequence[c.Hit]
    watermark: bytes
    list_id: str = ""
    personal: bool = False


class RecommendEvent(NamedTuple):
    """A list that was returned. personal: Whether the user or session was known."""

    collection: ServedCollection
    arm: c.Arm | None
    audience: c.Audience
    options: c.RecommendOptions
    reply: c.RecommendReply
    personal: bool


RequestEvent: TypeAlias = SearchEvent | RecommendEvent
# Runs on the event loop, within the request.
Observe: TypeAlias = Callable[[RequestEvent], None]
