"""Snapshots that upkeep proposes to serve, and what became of each.

Layout: <store>/<collection>/proposals/<snapshot id>.json; only ever created, and removed with the
snapshot. The state of a proposal follows from the alias records written since.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store, check_collection
from nearline.store.snapshot_ids import is_snapshot_id
from nearline.v1 import snapshot_pb2

_log = logging.getLogger(__name__)
_SUFFIX = ".json"


class _Content(BaseModel):
    """Content of a file; see `Proposal`."""

    model_config = ConfigDict(strict=True)

    snapshot_id: str
    reason: str = Field(max_length=10_000)
    epoch: int = Field(ge=0, lt=1 << 63)
    current: str
    # Until the year 5138, as all times that can be shown.
    time_s: float = Field(ge=0, lt=1e11)


class ProposalState(StrEnum):
    """States of a proposal."""

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
    1970. state: What became of it. why, settled_s: Reason and time of the alias record that led to
    the state; empty and 0 while it is open.
    """

    snapshot_id: str
    reason: str
    epoch: int
    current: str
    time_s: float
    state: ProposalState
    why: str
    settled_s: float

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
    content = _Content(
        snapshot_id=snapshot_id,
        reason=reason,
        epoch=judged.epoch,
        current=judged.current,
        time_s=round(time.time(), 3),
    )
    data = content.model_dump_json(indent=2) + "\n"
    store.files.create(_path(collection, snapshot_id), data.encode())


def read_proposals(store: Store, collection: str) -> list[Proposal]:
    """Returns the proposals of a collection, newest first; those that cannot be read are logged."""
    folder = _folder(collection)
    stems = [name.removesuffix(_SUFFIX) for name in store.files.names(folder)]
    contents = []
    for snapshot_id in sorted(filter(is_snapshot_id, stems), reverse=True):
        try:
            contents.append(_read(store, collection, snapshot_id))
        except SnapshotCorrupt as error:
            # It must keep neither upkeep from its work, nor an operator from pruning.
            _log.warning("proposal left out: %s", error.message)
    first = min((content.epoch for content in contents), default=0)
    records: list[snapshot_pb2.AliasRecord] = []
    if contents:
        newest_first = store.alias_records(collection)
        records = list(itertools.takewhile(lambda one: one.epoch > first, newest_first))[::-1]
    found = []
    for content in contents:
        since = [one for one in records if one.epoch > content.epoch]
        state, why, settled_s = _state(content.snapshot_id, content.current, since)
        found.append(Proposal(**dict(content), state=state, why=why, settled_s=settled_s))
    return found


def newest_proposal(store: Store, collection: str) -> Proposal | None:
    """Returns the newest proposal of a collection; None if there is none."""
    return next(iter(read_proposals(store, collection)), None)


def _state(
    snapshot_id: str, current: str, since: Sequence[snapshot_pb2.AliasRecord]
) -> tuple[ProposalState, str, float]:
    """Returns the state of a proposal; of the record that settled it the reason and the time.

    Args:
        snapshot_id: The proposed snapshot.
        current: The snapshot that was current when it was proposed.
        since: The alias records since, oldest first.
    """
    state, why, time_s = ProposalState.OPEN, "", 0.0
    for record in since:
        before = state
        if record.current == snapshot_id:
            state = ProposalState.PROMOTED
        elif state is ProposalState.PROMOTED:
            # A later release replaces it as any other; a rollback says that it should not be.
            state = ProposalState.REJECTED if record.rollback_to_epoch else state
        elif record.current != current:
            state = ProposalState.OUTDATED
        elif record.canary == snapshot_id:
            state = ProposalState.ON_TRIAL
        elif state is ProposalState.ON_TRIAL:
            state = ProposalState.REJECTED
        if state is not before:
            why, time_s = record.why, record.create_time.ToNanoseconds() / 1e9
        if state in (ProposalState.REJECTED, ProposalState.OUTDATED):
            break
    return state, why, time_s


def remove_proposal(store: Store, collection: str, snapshot_id: str) -> None:
    """Removes the record of a proposal; does nothing if there is none."""
    path = _path(collection, snapshot_id)
    if store.files.holds(path):
        store.files.remove_file(path)


def _read(store: Store, collection: str, snapshot_id: str) -> _Content:
    """Returns the content of a proposal. Raises: SnapshotCorrupt."""
    path = _path(collection, snapshot_id)
    try:
        content = _Content.model_validate_json(store.files.read(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise SnapshotCorrupt(
            f"{store.url}/{path} cannot be read: {place}: {first['msg']}; remove the file"
        ) from error
    if content.snapshot_id != snapshot_id:
        raise SnapshotCorrupt(
            f"{store.url}/{path} proposes another snapshot than its name says; remove the file"
        )
    return content


def _folder(collection: str) -> str:
    return f"{check_collection(collection)}/proposals"


def _path(collection: str, snapshot_id: str) -> str:
    return f"{_folder(collection)}/{snapshot_id}{_SUFFIX}"
