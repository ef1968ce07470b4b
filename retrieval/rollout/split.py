"""Which of two snapshots answers a request, by the hash of whom it is for."""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from nearline.contract import Arm
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.rollout.analysis import CanaryLimits

_UNITS = 1 << 64
_DEFAULT_SAMPLE = 0.05
# What a canary may find less than its manifest promises.
_RECALL_SLACK = 0.05
# How a list id names the arm that its list came from.
_ARM_MARKS = {Arm.CURRENT: "b", Arm.CANARY: "c"}


class Requester(NamedTuple):
    """Whom a request is for; empty: it does not say."""

    user: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSplit:
    """How requests are dealt, as an alias record says it.

    epoch: Of the record. share: Of requests that the canary answers, 0..1. split_by: What they are
    dealt by. shadow: It answers beside the current one, and nobody sees it. recall_sample: Share of
    its searches that are done again exactly.
    """

    collection: str
    epoch: int
    current: str
    canary: str
    share: float
    rollout_id: str
    split_by: release_pb2.SplitBy
    shadow: bool
    limits: CanaryLimits
    recall_sample: float

    @property
    def dealt_by_unit(self) -> bool:
        """Whether several requests may belong together."""
        return self.split_by != release_pb2.SPLIT_BY_REQUEST

    def unit_of(self, asker: Requester) -> int:
        """Returns the number that a request is dealt by, 0..2^64-1; another one for each rollout.

        A request that names nobody is one by itself.
        """
        by_user = self.split_by in (
            release_pb2.SPLIT_BY_UNSPECIFIED,
            release_pb2.SPLIT_BY_USER,
        )
        named = ""
        if by_user and asker.user:
            named = f"u{asker.user}"
        elif self.dealt_by_unit and asker.session:
            named = f"s{asker.session}"
        if not named:
            return random.getrandbits(64)
        digest = blake2b(
            named.encode(errors="surrogatepass"),
            digest_size=8,
            key=self.rollout_id.encode()[:64],
        )
        return int.from_bytes(digest.digest(), "little")

    def to_canary(self, unit: int) -> bool:
        """Returns whether a unit is the canary's; a greater share keeps those of a smaller one."""
        return unit < self.share * _UNITS


def parse_split(
    collection: str, record: snapshot_pb2.AliasRecord, canary: snapshot_pb2.Manifest
) -> TrafficSplit:
    """Reads how requests are dealt from a record that names a canary, and its manifest."""
    rollout = record.rollout
    given = rollout.limits
    promised = canary.quality.recall_at_10 if canary.quality.queries else 0.0
    usual = {
        "false_alarm": 0.01,
        "latency_ratio": 1.1,
        "min_recall": max(0.0, promised - _RECALL_SLACK),
        "recall_sample": _DEFAULT_SAMPLE,
    }
    limit = {
        name: getattr(given, name) if given.HasField(name) else value
        for name, value in usual.items()
    }
    return TrafficSplit(
        collection=collection,
        epoch=record.epoch,
        current=record.current,
        canary=record.canary,
        share=record.canary_share,
        rollout_id=rollout.rollout_id,
        split_by=rollout.split_by,
        shadow=rollout.shadow,
        limits=CanaryLimits(
            false_alarm=limit["false_alarm"],
            latency_ratio=limit["latency_ratio"],
            min_recall=limit["min_recall"],
        ),
        recall_sample=limit["recall_sample"],
    )


def mark_list_id(list_id: str, epoch: int, arm: Arm) -> str:
    """Returns the name of a list with the rollout and the arm that it came from."""
    return f"{list_id}.{epoch:x}{_ARM_MARKS[arm]}"


def is_from_canary(list_id: str, epoch: int) -> bool | None:
    """Returns whether a list came from the canary of the rollout of an epoch.

    Returns: None: it is of no rollout, or of another one.
    """
    _, dot, mark = list_id.rpartition(".")
    if not dot or mark[:-1] != f"{epoch:x}":
        return None
    return {"b": False, "c": True}.get(mark[-1:])
