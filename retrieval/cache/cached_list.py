"""What a cache of hot lists keeps, and by what name."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeAlias

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class CachedList:
    """A list that is the same for everybody.

    ids, messages: Of its items, best first; messages with what their surface shows, as
    `wire.message_of` gives it: most of what is read here goes out as it is. computed_us: When its
    computation began, microseconds since 1970. cost_s: How long that took. watermark: Changes of
    items that it has, see `protocols.watermark`; empty: it cannot say. expires_us: When the
    first of its items expires; 0: none does.
    """

    # Two tuples, not one of pairs: those of a few thousand lists took the collector of garbage 50
    # ms at a time, in which nobody was answered.
    ids: tuple[str, ...]
    messages: tuple[bytes, ...]
    computed_us: int
    cost_s: float
    watermark: bytes = b""
    expires_us: int = 0

    def without(self, gone: Collection[str]) -> CachedList:
        """Returns the list without some items."""
        kept = [at for at, one in enumerate(self.ids) if one not in gone]
        if len(kept) == len(self.ids):
            return self
        return replace(
            self,
            ids=tuple(self.ids[at] for at in kept),
            messages=tuple(self.messages[at] for at in kept),
        )


class ListKey(NamedTuple):
    """All that a list depends on, so that nothing is ever to be invalidated.

    payload: Names the fields that the surface shows. of: What it is for: "item:42", "popular".
    """

    collection: str
    snapshot_id: str
    policy_digest: str
    filter_digest: str
    payload: str
    of: str


class CacheLevel(Enum):
    """Where a list came from; STALE: from any of them, past its time."""

    NEAR = "near"
    REDIS = "redis"
    LIVE = "live"
    STALE = "stale"


def message_digest(message: Message) -> str:
    """Returns 24 hex digits of a message, the same in every process."""
    data = message.SerializeToString(deterministic=True)
    return hashlib.blake2b(data, digest_size=12).hexdigest()


# Gives None where there is no such item. Several may wait for it: what it does must not depend on
# who asks, nor on how much time he has.
ComputeList: TypeAlias = Callable[[], Awaitable[CachedList | None]]
