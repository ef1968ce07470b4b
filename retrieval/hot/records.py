"""What a cache of hot lists keeps, and by what name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from nearline.contract import Attributes


class HotItem(NamedTuple):
    """One item of a list, with what its surface shows; None: the surface does not show it.

    attributes: As the contract has them; lists come back from Redis as lists.
    """

    id: str
    score: float
    title: str | None = None
    text: str | None = None
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class HotList:
    """A list that is the same for everybody.

    items: Best first. computed_us: When its computation began, microseconds since 1970.
    cost_s: How long that took. watermark: Changes of items that it has, see
        `retrieval.changes.watermark`; empty: it cannot say.
    """

    items: tuple[HotItem, ...]
    computed_us: int
    cost_s: float
    watermark: bytes = b""


class HotKey(NamedTuple):
    """All that a list depends on, so that nothing is ever to be invalidated.

    payload: Names the fields that the surface shows. of: What it is for: "item:42", "popular".
    """

    collection: str
    snapshot_id: str
    policy_digest: str
    filter_digest: str
    payload: str
    of: str


class Level(Enum):
    """Where a list came from; STALE: from any of them, past its time."""

    NEAR = "near"
    REDIS = "redis"
    LIVE = "live"
    STALE = "stale"


# Gives None where there is no such item. Several may wait for it: what it does must not depend on
# who asks, nor on how much time he has.
Compute: TypeAlias = Callable[[], Awaitable[HotList | None]]
