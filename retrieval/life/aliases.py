"""Changes of the alias history: promote, and roll back. Records are only ever added."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Sequence

from nearline.errors import AlreadyExists, Conflict, NotFound
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2

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
    Returns: The new record.
    Raises: NotFound: no such snapshot. SnapshotCorrupt, SnapshotMismatch: it must not go live.
        Conflict: another epoch is in force, or somebody else was faster.
    """
    _check_epoch(store, collection, expected_epoch)
    check(store.manifest(collection, snapshot_id))
    if verify:
        store.verify(collection, snapshot_id)
    record = snapshot_pb2.AliasRecord(current=snapshot_id, who=who, why=why)
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

    Raises: NotFound: there is nothing before it, or that was pruned. As `promote`.
    """
    history = list(store.alias_records(collection))
    if not history:
        store.alias_in_force(collection)  # Raises, with the remedy.
    newest = history[0]
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


def rollback_target(
    history: Sequence[snapshot_pb2.AliasRecord],
) -> snapshot_pb2.AliasRecord | None:
    """Gives the record that a rollback goes back to; None: there is none.

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
    record.who = (record.who or who_am_i())[:_MAX_WORDS]
    record.why = record.why[:_MAX_WORDS]
    record.create_time.GetCurrentTime()
    while True:
        record.epoch = 1 + _check_epoch(store, collection, expected_epoch)
        try:
            store.create_alias_record(collection, record)
        except AlreadyExists:
            continue  # Somebody else made that epoch first: take the next one, or refuse.
        return record


def _check_epoch(store: Store, collection: str, expected: int) -> int:
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


def who_am_i() -> str:
    """Gives this user and machine, for the record."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # A container's user may have no name.
        return f"{os.getuid()}@{socket.gethostname()}"
