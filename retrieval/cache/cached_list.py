"""The cached list and its key."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeAlias

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class CachedList:
    """A list that everyone shares.

    ids, messages: Ids and messages of its items, best first. Messages are encoded as
    `wire.recommendation_to_bytes` does, since most are sent unchanged. computed_us: When its
    computation started, microseconds since 1970. cost_s: Duration of the computation. watermark:
    The changes of items that the list reflects, see `protocols.watermark`; empty if unknown.
    expires_us: When the first of its items expires; 0 if none does.
    """

    # Two tuples instead of one of pairs: with the pairs of a few thousand lists, the garbage
    # collector paused the event loop for 50 ms at a time.
    ids: tuple[str, ...]
    messages: tuple[bytes, ...]
    computed_us: int
    cost_s: float
    watermark: bytes = b""
    expires_us: int = 0

    def without(self, deleted: Collection[str]) -> CachedList:
        """Returns the list without some items."""
        kept = [at for at, one in enumerate(self.ids) if one not in deleted]
        if len(kept) == len(self.ids):
            return self
        return replace(
            self,
            ids=tuple(self.ids[at] for at in kept),
            messages=tuple(self.messages[at] for at in kept),
        )


class ListKey(NamedTuple):
    """Everything that a list depends on, so that no entry needs to be invalidated.

    payload: Names of the fields that the surface shows. of: Name of the list, such as "item:42" or
    "popular".
    """

    collection: str
    snapshot_id: str
    policy_digest: str
    filter_digest: str
    payload: str
    of: str


class CacheLevel(Enum):
    """Where a list came from; STALE: from any level, but no longer fresh."""

    NEAR = "near"
    REDIS = "redis"
    LIVE = "live"
    STALE = "stale"


def message_digest(message: Message) -> str:
    """Returns 24 hex digits of a message, the same in every process."""
    data = message.SerializeToString(deterministic=True)
    return hashlib.blake2b(data, digest_size=12).hexdigest()


# Returns None if the item does not exist. Several requests may wait for it, so it must not depend
# on any one of them or on its deadline.
ComputeList: TypeAlias = Callable[[], Awaitable[CachedList | None]]
