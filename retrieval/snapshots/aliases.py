"""Changes of the alias history: promote, and roll back. Records are only ever added."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Sequence

from nearline.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from nearline.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2

_MAX_WORDS = 1_000


def _any(manifest: snapshot_pb2.Manifest) -> None:
    """Refuses nothing."""


def promote(
    store: Store,
    collection: str,
    snapshot_id: str,
    *,
    expected_epoch: int = 0,
    who: str = "",
    why: str = "",
    verify: bool = True,
    check: Callable[[snapshot_pb2.Manifest], None] = _any,
    gate: release_pb2.GateVerdict | None = None,
) -> snapshot_pb2.AliasRecord:
    """Makes a snapshot current; a canary, if any, ends. Blocks while the files are read.

    Args:
        store: The store.
        collection: Name of the collection.
        snapshot_id: The snapshot.
        expected_epoch: Refuse unless this is the epoch in force; 0: whatever it is.
        who: For the record; empty: this user on this machine.
        why: For the record.
        verify: Read every file and compare it with the manifest first.
        check: Raises for a snapshot that must not become current, whatever its files say.
        gate: What the gate said of it, for the record; None: it was not asked.
    Returns: The new record.
    Raises: NotFound: no such snapshot. SnapshotCorrupt, SnapshotMismatch: it must not go live.
        Conflict: another epoch is in force, or somebody else was faster.
    """
    check_epoch(store, collection, expected_epoch)
    check(store.manifest(collection, snapshot_id))
    if verify:
        store.verify(collection, snapshot_id)
    record = snapshot_pb2.AliasRecord(current=snapshot_id, who=who, why=why, gate=gate)
    return _add(store, collection, record, expected_epoch)


def roll_back(
    store: Store,
    collection: str,
    *,
    expected_epoch: int = 0,
    who: str = "",
    why: str = "",
    check: Callable[[snapshot_pb2.Manifest], None] = _any,
) -> snapshot_pb2.AliasRecord:
    """Makes the snapshot before the current one current again; the next call goes further back.

    While a canary is tried, that alone ends.

    Raises: NotFound: there is nothing before it, or that was pruned. As `promote`.
    """
    history = list(store.alias_records(collection))
    if not history:
        store.alias_in_force(collection)  # Raises, with the remedy.
    newest = history[0]
    if newest.canary:
        # The newest change is that a canary is tried: this is what goes back.
        return end_split(
            store,
            collection,
            expected_epoch=expected_epoch or newest.epoch,
            who=who,
            why=why or f"rollback of the trial of {newest.canary}",
        )
    target = rollback_target(history)
    if target is None:
        raise NotFound(
            f"no snapshot of {collection!r} was current before {newest.current}; "
            "promote one by its id"
        )
    check(store.manifest(collection, target.current))
    store.verify(collection, target.current)
    record = snapshot_pb2.AliasRecord(
        current=target.current,
        who=who,
        why=why or f"rollback from {newest.current}",
        rollback_to_epoch=target.rollback_to_epoch or target.epoch,
    )
    # What was found is right for this epoch only.
    return _add(store, collection, record, expected_epoch or newest.epoch)


def split(
    store: Store,
    collection: str,
    canary: str,
    share: float,
    *,
    rollout: release_pb2.Rollout | None = None,
    expected_epoch: int = 0,
    who: str = "",
    why: str = "",
    check: Callable[[snapshot_pb2.Manifest], None] = _any,
    gate: release_pb2.GateVerdict | None = None,
) -> snapshot_pb2.AliasRecord:
    """Has a snapshot tried beside the current one, or gives it another share. Blocks.

    A trial of the same snapshot goes on under its name, so that whoever the canary answers goes on
    being answered by it where its share grows; what was seen under another share is not counted.

    Args:
        canary: The snapshot.
        share: Of requests that it answers, above 0 and below 1.
        rollout: How it is tried; its rollout_id and start_time are given here. None: as usual.
        expected_epoch, who, why, check, gate: As in `promote`.
    Returns: The new record.
    Raises: InvalidRequest: a share or limit that is none, or the snapshot is current already.
        NotFound, SnapshotCorrupt, SnapshotMismatch, Conflict: as `promote`.
    """
    check_share(share)
    newest = store.alias_in_force(collection)
    if canary == newest.current:
        raise InvalidRequest(
            f"{canary} is the current snapshot of {collection!r}; try another one beside it",
            field="canary_snapshot_id",
        )
    given = release_pb2.Rollout()
    if rollout is not None:
        given.CopyFrom(rollout)
    _check_limits(given.limits)
    check(store.manifest(collection, canary))
    goes_on = newest.canary == canary
    if not goes_on:
        store.verify(collection, canary)
    given.rollout_id = newest.rollout.rollout_id if goes_on else secrets.token_hex(8)
    if goes_on:
        given.start_time.CopyFrom(newest.rollout.start_time)
    else:
        given.start_time.GetCurrentTime()
    record = snapshot_pb2.AliasRecord(
        current=newest.current,
        canary=canary,
        canary_share=share,
        rollout=given,
        who=who,
        why=why,
        gate=gate,
    )
    # What is current was read of this epoch.
    return _add(store, collection, record, expected_epoch or newest.epoch)


def end_split(
    store: Store, collection: str, *, expected_epoch: int = 0, who: str = "", why: str = ""
) -> snapshot_pb2.AliasRecord:
    """Ends the trial of a canary: the current snapshot answers everything again.

    Raises: NotFound: nothing is tried. Conflict: as `promote`.
    """
    newest = store.alias_in_force(collection)
    if not newest.canary and expected_epoch in (0, newest.epoch):
        raise NotFound(f"no snapshot of {collection!r} is tried beside {newest.current}")
    record = snapshot_pb2.AliasRecord(current=newest.current, who=who, why=why)
    return _add(store, collection, record, expected_epoch or newest.epoch)


def check_share(share: float) -> None:
    """Raises InvalidRequest where it is no share for a canary."""
    if not 0 < share < 1:
        raise InvalidRequest(
            f"canary_share is {share:g}; above 0 and below 1 is allowed: to give it everything, "
            "promote it",
            field="canary_share",
        )


def _check_limits(limits: release_pb2.RolloutLimits) -> None:
    for name, least, most in (
        ("false_alarm", 1e-6, 0.5),
        ("latency_ratio", 1.0, 100.0),
        ("min_recall", 0.0, 0.999),
        ("recall_sample", 0.0, 1.0),
        ("away_s", 1.0, 1e6),
    ):
        value = getattr(limits, name)
        if limits.HasField(name) and not least <= value <= most:
            raise InvalidRequest(
                f"{name} is {value:g}; {least:g}..{most:g} is allowed",
                field=f"rollout.limits.{name}",
            )


def rollback_target(
    history: Sequence[snapshot_pb2.AliasRecord],
) -> snapshot_pb2.AliasRecord | None:
    """Returns the record that a rollback goes back to; None: there is none.

    promoted A, B, C -> B; rolled back to B -> A; promoted D after that -> B, which was current.

    Args:
        history: All records, newest first.
    """
    if not history:
        return None
    newest = history[0]
    start = newest.rollback_to_epoch or newest.epoch
    before = (one for one in history if one.epoch < start and one.current != newest.current)
    return next(before, None)


def _add(
    store: Store, collection: str, record: snapshot_pb2.AliasRecord, expected_epoch: int
) -> snapshot_pb2.AliasRecord:
    record.who = (record.who or operator_name())[:_MAX_WORDS]
    record.why = record.why[:_MAX_WORDS]
    record.create_time.GetCurrentTime()
    while True:
        record.epoch = 1 + check_epoch(store, collection, expected_epoch)
        try:
            store.create_alias_record(collection, record)
        except AlreadyExists:
            continue  # Somebody else made that epoch first: take the next one, or refuse.
        return record


def check_epoch(store: Store, collection: str, expected: int) -> int:
    """Returns the epoch in force; 0: there is none.

    Args:
        expected: What it has to be; 0: whatever it is.
    Raises: Conflict: it is another one.
    """
    try:
        epoch = store.alias_in_force(collection).epoch
    except NotFound:
        epoch = 0
    if expected and epoch != expected:
        raise Conflict(
            f"epoch {epoch} of {collection!r} is in force, {expected} was expected; somebody else "
            "changed the aliases: look at them, and decide again"
        )
    return epoch


def operator_name() -> str:
    """Returns this user and machine, for the record."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # A container's user may have no name.
        return f"{os.getuid()}@{socket.gethostname()}"
