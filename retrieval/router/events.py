"""What was asked and answered, for those who watch: they must be quick, and never raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from nearline import contract as c
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import Asked


class Searched(NamedTuple):
    """A search by one query that every shard answered.

    served: What answered it. arm: Which of two snapshots that is; None: only one is served.
    asked: The query as the shards got it; None: the answer was kept from before. watermark: How far
    live changes are in the hits, as users see it.
    """

    served: ServedCollection
    arm: c.Arm | None
    query: c.Query
    options: c.SearchOptions
    asked: Asked | None
    hits: Sequence[c.Hit]
    watermark: bytes


class Recommended(NamedTuple):
    """A list that was made for somebody, as `Searched`. personal: A user or a session was known."""

    served: ServedCollection
    arm: c.Arm | None
    audience: c.Audience
    options: c.RecommendOptions
    reply: c.RecommendReply
    personal: bool


class Interacted(NamedTuple):
    """Interactions that were recorded."""

    collection: str
    interactions: Sequence[c.Interaction]


Happening: TypeAlias = Searched | Recommended | Interacted
# Runs on the event loop, within the request.
Observe: TypeAlias = Callable[[Happening], None]
