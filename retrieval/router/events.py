"""What was asked and answered, for those who watch: they must be quick, and never raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from nearline import contract as c
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch


class SearchEvent(NamedTuple):
    """A search by one query that every shard answered.

    served: What answered it. arm: Which of two snapshots that is; None: only one is served.
    asked: The query as the shards got it; None: the answer was kept from before. watermark: How far
    live changes are in the hits, as users see it.
    """

    served: ServedCollection
    arm: c.Arm | None
    query: c.Query
    options: c.SearchOptions
    asked: QueryBatch | None
    hits: Sequence[c.Hit]
    watermark: bytes


class RecommendEvent(NamedTuple):
    """A list that was returned. personal: Whether the user or session was known."""

    served: ServedCollection
    arm: c.Arm | None
    audience: c.Audience
    options: c.RecommendOptions
    reply: c.RecommendReply
    personal: bool


class InteractionsEvent(NamedTuple):
    """Interactions that were recorded."""

    collection: str
    interactions: Sequence[c.Interaction]


RequestEvent: TypeAlias = SearchEvent | RecommendEvent | InteractionsEvent
# Runs on the event loop, within the request.
Observe: TypeAlias = Callable[[RequestEvent], None]
