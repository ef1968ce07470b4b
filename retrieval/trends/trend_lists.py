"""The lists that upkeep counts from recorded interactions, as Redis holds them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from nearline.internal.v1 import trends_pb2
from nearline.times import DAY_US
from nearline.v1 import snapshot_pb2

# What needs Redis, for errors.
NEEDED_BY = "trends"
# Fields of the hash: a digest of the lists, and the lists.
VERSION, LISTS = "version", "lists"
_VERSION_BYTES = 8


def newest_known_us(manifest: snapshot_pb2.Manifest) -> int:
    """Returns the newest interaction that the models of a snapshot know; 0 without models.

    In microseconds since 1970, at most when the snapshot was made: a wrong time of the future would
    hide all that comes before it.
    """
    newest_us = manifest.behaviour.newest_time.ToMicroseconds()
    return min(newest_us, manifest.create_time.ToMicroseconds() or newest_us)


class TrendItems(NamedTuple):
    """Items, best first, with their scores, > 0."""

    ids: Sequence[str]
    scores: Sequence[float]

    def encode(self) -> bytes:
        """Encodes the items."""
        return _message(self).SerializeToString()

    @classmethod
    def decode(cls, data: bytes | None) -> TrendItems:
        """Decodes items; those that are missing or damaged are none."""
        try:
            return _items(trends_pb2.TrendItems.FromString(data or b""))
        except DecodeError:
            return NO_ITEMS


NO_ITEMS = TrendItems((), ())


class TrendLists(NamedTuple):
    """What is popular, counted from the interactions that no model was trained on.

    newest_us: Newest interaction, microseconds since 1970. trained_us: Newest one that the models
    were trained on; 0 without models. trending_days, popular_days: An interaction so old counts
    1 / e; inf: all count the same. trending, popular: At most 1,000 items.
    """

    newest_us: int = 0
    trained_us: int = 0
    trending_days: float = math.inf
    popular_days: float = math.inf
    trending: TrendItems = NO_ITEMS
    popular: TrendItems = NO_ITEMS

    def fading(self, days: float) -> float:
        """Returns how much of the trained counts is left, 0..1."""
        return math.exp(-max(0, self.newest_us - self.trained_us) / DAY_US / days)

    def encode(self) -> Mapping[str, bytes]:
        """Encodes the lists as fields of a hash."""
        lists = trends_pb2.TrendLists(
            newest_us=self.newest_us,
            trained_us=self.trained_us,
            trending_days=self.trending_days if math.isfinite(self.trending_days) else 0,
            popular_days=self.popular_days if math.isfinite(self.popular_days) else 0,
            trending=_message(self.trending),
            popular=_message(self.popular),
        ).SerializeToString(deterministic=True)
        version = hashlib.blake2b(lists, digest_size=_VERSION_BYTES).digest()
        return {VERSION: version, LISTS: lists}

    @classmethod
    def decode(cls, data: bytes | None) -> TrendLists:
        """Decodes the lists; those that are missing or damaged are empty."""
        try:
            lists = trends_pb2.TrendLists.FromString(data or b"")
        except DecodeError:
            return NO_TRENDS
        return cls(
            lists.newest_us,
            lists.trained_us,
            lists.trending_days or math.inf,
            lists.popular_days or math.inf,
            _items(lists.trending),
            _items(lists.popular),
        )


NO_TRENDS = TrendLists()


class TrendKeys(NamedTuple):
    """Keys of a collection.

    lists: Hash of `TrendLists.encode`. related: Hash from an item to the items that go with it.
    lease: Held by the upkeep that counts.
    """

    lists: str
    related: str
    lease: str


def trend_keys(collection: str) -> TrendKeys:
    """Returns the keys of a collection; one slot of a cluster holds them."""
    prefix = f"nl:{{{collection}}}:trends"
    return TrendKeys(prefix, f"{prefix}:related", f"{prefix}:lease")


def _message(items: TrendItems) -> trends_pb2.TrendItems:
    return trends_pb2.TrendItems(ids=items.ids, scores=items.scores)


def _items(message: trends_pb2.TrendItems) -> TrendItems:
    ids, scores = tuple(message.ids), tuple(message.scores)
    return TrendItems(ids, scores) if len(ids) == len(scores) else NO_ITEMS
