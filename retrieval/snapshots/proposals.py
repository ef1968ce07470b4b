"""Snapshots that upkeep proposes to serve, and what became of each.

Layout: <store>/<collection>/proposals/<snapshot id>.json; only ever created, and removed with the
snapshot. The state of a proposal follows from the alias records written since.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import snapshot_pb2

_CONTENT: Mapping[str, Callable[[Any], object]] = {
    "snapshot_id": str,
    "reason": str,
    "epoch": int,
    "current": str,
    "time_s": float,
}


class ProposalState(StrEnum):
    """What became of a proposal."""

    OPEN = "open"
    ON_TRIAL = "on trial"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A snapshot that upkeep built and the gate passed.

    reason: Why it was built. epoch: Epoch at which the gate judged it. current: Snapshot that was
    current then, with which the gate compared it. time_s: When it was proposed, in seconds since
    1970. state: What became of it. why: Reason in the alias record that settled it; empty before.
    """

    snapshot_id: str
    reason: str
    epoch: int
    current: str
    time_s: float
    state: ProposalState
    why: str

    @property
    def is_pending(self) -> bool:
        """Whether it may still be promoted."""
        return self.state in (ProposalState.OPEN, ProposalState.ON_TRIAL)


def propose(
    store: Store,
    collection: str,
    snapshot_id: str,
    reason: str,
    judged: snapshot_pb2.AliasRecord,
) -> None:
    """Proposes a snapshot that passed the gate.

    Args:
        judged: The record that was current when the gate judged it.
    Raises: AlreadyExists: It was proposed before.
    """
    content = {
        "snapshot_id": snapshot_id,
        "reason": reason,
        "epoch": judged.epoch,
        "current": judged.current,
        "time_s": round(time.time(), 3),
    }
    data = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    store.files.create(_path(collection, snapshot_id), data.encode())


def read_proposals(store: Store, collection: str) -> list[Proposal]:
    """Returns the proposals of a collection, newest first.

    Raises: SnapshotCorrupt: A proposal cannot be read.
    """
    folder = _folder(collection)
    names = [name for name in store.files.names(folder) if name.endswith(".json")]
    contents = [_read(store, f"{folder}/{name}") for name in sorted(names, reverse=True)]
    first = min((content["epoch"] for content in contents), default=0)
    records: list[snapshot_pb2.AliasRecord] = []
    if contents:
        newest_first = store.alias_records(collection)
        records = list(itertools.takewhile(lambda one: one.epoch > first, newest_first))
    found = []
    for content in contents:
        since = [one for one in records if one.epoch > content["epoch"]]
        state, why = _state(content["snapshot_id"], content["current"], since)
        found.append(Proposal(**content, state=state, why=why))
    return found


def _state(
    snapshot_id: str, current: str, since: Sequence[snapshot_pb2.AliasRecord]
) -> tuple[ProposalState, str]:
    """Returns the state of a proposal, and the reason in the record that settled it.

    Args:
        snapshot_id: The proposed snapshot.
        current: The snapshot that was current when it was proposed.
        since: The alias records since, newest first.
    """
    for record in since:
        if record.current == snapshot_id:
            return ProposalState.PROMOTED, record.why
    ended = ""
    for record in since:
        if record.canary == snapshot_id:
            state = ProposalState.REJECTED if ended else ProposalState.ON_TRIAL
            return state, ended
        ended = record.why or "no reason given"
    for record in since:
        if record.current != current:
            return ProposalState.OUTDATED, f"{record.current} is current"
    return ProposalState.OPEN, ""


def remove_proposal(store: Store, collection: str, snapshot_id: str) -> None:
    """Removes the record of a proposal; does nothing if there is none."""
    path = _path(collection, snapshot_id)
    if store.files.holds(path):
        store.files.remove_file(path)


def _read(store: Store, path: str) -> dict[str, Any]:
    """Returns the content of a proposal. Raises: SnapshotCorrupt."""
    try:
        content = json.loads(store.files.read(path))
        return {name: kind(content[name]) for name, kind in _CONTENT.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise SnapshotCorrupt(
            f"{store.url}/{path} cannot be read: {error!r}; remove the file"
        ) from error


def _folder(collection: str) -> str:
    return f"{check_collection(collection)}/proposals"


def _path(collection: str, snapshot_id: str) -> str:
    return f"{_folder(collection)}/{snapshot_id}.json"
