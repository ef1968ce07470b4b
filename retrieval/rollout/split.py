"""Traffic split: assigns requests to a snapshot by the hash of their user or session."""

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
# Allowed difference between the measured recall and the recall in the manifest.
_RECALL_SLACK = 0.05
# Marks in list ids for the arm that the list came from.
_ARM_MARKS = {Arm.CURRENT: "b", Arm.CANARY: "c"}


class Requester(NamedTuple):
    """User and session of a request; empty if the request does not name them.

    surface: Surface of a list; empty for a search.
    """

    user: str = ""
    session: str = ""
    surface: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSplit:
    """Traffic split of an alias record.

    epoch: Epoch of the record.
    share: Share of requests assigned to the canary, 0..1.
    rollout_id: Seed of the assignment, and of the proofs in list ids. No caller may know it, who
        could then choose users of one arm, or make clicks up.
    split_by: Unit of the assignment: user, session or request.
    shadow: Whether the canary answers in shadow, that is, its answers are compared and discarded.
    recall_sample: Share of the canary's searches that are rerun exactly.
    variant: Names the policies on trial; empty if a snapshot is on trial.
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
    variant: str = ""

    @property
    def dealt_by_unit(self) -> bool:
        """Whether several requests may share a draw."""
        return self.split_by != release_pb2.SPLIT_BY_REQUEST

    def unit_of(self, requester: Requester) -> int:
        """Returns the hash of the unit of a request, 0..2^64-1; it differs between rollouts.

        A request without user and session is a unit of its own.
        """
        if self.split_by == release_pb2.SPLIT_BY_SESSION:
            requester = requester._replace(user="")
        if not self.dealt_by_unit or not (requester.user or requester.session):
            return random.getrandbits(64)
        return self.visitor_of(requester)

    def visitor_of(self, requester: Requester) -> int:
        """Returns the hash of a user, or else of a session, as in `unit_of`."""
        user, session = requester.user, requester.session
        named = f"u{user}" if user else f"s{session}"
        return int.from_bytes(self._hash(named), "little")

    def to_canary(self, unit: int) -> bool:
        """Returns whether a unit is assigned to the canary; a larger share keeps its units."""
        return unit < self.share * _UNITS

    def mark_list_id(self, list_id: str, arm: Arm) -> str:
        """Returns a list id that also names the rollout and the arm of the list, and proves it."""
        marked = f"{list_id}.{self.epoch:x}{_ARM_MARKS[arm]}"
        return f"{marked}.{self._hash(marked).hex()}"

    def is_from_canary(self, list_id: str) -> bool | None:
        """Returns whether a list came from the canary of this rollout.

        Returns: None if the list came from no rollout or from another one, or its id is made up.
        """
        marked, _, proof = list_id.rpartition(".")
        mark = marked.rpartition(".")[2]
        if mark[:-1] != f"{self.epoch:x}" or proof != self._hash(marked).hex():
            return None
        return {"b": False, "c": True}.get(mark[-1:])

    def _hash(self, text: str) -> bytes:
        key = self.rollout_id.encode()[:64]
        return blake2b(text.encode(errors="surrogatepass"), digest_size=8, key=key).digest()


def parse_split(
    collection: str, record: snapshot_pb2.AliasRecord, canary: snapshot_pb2.Manifest
) -> TrafficSplit:
    """Returns the split of an alias record that names a canary, given the canary's manifest."""
    rollout = record.rollout
    limits = rollout.limits
    judged = canary.quality.queries and not rollout.policies
    promised = canary.quality.recall_at_10 if judged else 0.0
    defaults = {
        "false_alarm": 0.01,
        "latency_ratio": 1.1,
        "min_recall": max(0.0, promised - _RECALL_SLACK),
        "recall_sample": _DEFAULT_SAMPLE,
        "min_effect": 0.1,
    }
    values = {
        name: getattr(limits, name) if limits.HasField(name) else value
        for name, value in defaults.items()
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
        recall_sample=values.pop("recall_sample"),
        variant=rollout.rollout_id if rollout.policies else "",
        limits=CanaryLimits(**values),
    )
