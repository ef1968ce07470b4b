"""Changes the aliases of a collection: promote, roll back, split, drop.

Records are only ever added; the last one says that the collection was dropped.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable

from nearline.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, NotReady
from nearline.store.removal import has_records, is_unfinished
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from nearline.wire.limits import LIMITS, check_range

_MAX_TEXT = 1_000
# Whoever began to drop a collection has this long before another process may go on with it.
_DROP_S = 60.0


def _any(manifest: snapshot_pb2.Manifest) -> None:
    """Accepts every snapshot."""


def create(
    store: Store, collection: str, snapshot_id: str, *, who: str = "", why: str = ""
) -> snapshot_pb2.AliasRecord:
    """Adds the first record of a collection; of two that create one, one does.

    Returns: The new record.
    Raises: AlreadyExists: There is a collection of this name. Conflict: One is being dropped.
    """
    record = snapshot_pb2.AliasRecord(current=snapshot_id, who=who, why=why)
    _complete(record)
    record.epoch = 1 + check_free(store, collection)
    try:
        store.create_alias_record(collection, record)
    except AlreadyExists:
        check_free(store, collection)
        raise
    return record


def check_free(store: Store, collection: str) -> int:
    """Returns the last epoch of a name that no collection has; 0 if none ever had.

    Raises: AlreadyExists: There is a collection of this name. Conflict: One is being dropped.
    """
    newest = store.newest_alias_record(collection)
    if newest is None:
        return 0
    if not newest.dropped:
        raise AlreadyExists(
            f"there is a collection {collection!r} in {store.url}; choose another name, or drop it "
            f"first: nearline collections drop {collection}",
            field="collection",
        )
    check_not_dropping(store, collection)
    return newest.epoch


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
    """Makes a snapshot current and ends the trial of a canary, if any. Blocks while files are read.

    Args:
        store: The store.
        collection: Name of the collection.
        snapshot_id: The snapshot.
        expected_epoch: Required current epoch; 0 accepts any.
        who: Operator, for the record; empty for this user on this machine.
        why: Reason, for the record.
        verify: Whether to compare every file with the manifest first.
        check: Raises for a snapshot that must not become current, even if its files are valid.
        gate: Verdict of the gate, for the record; None if the gate did not run.
    Returns: The new record.
    Raises: NotFound: The snapshot does not exist. SnapshotCorrupt, SnapshotMismatch: It must not go
        live. Conflict: The current epoch is a different one, or another change was faster.
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
    """Makes the previous snapshot current again; further calls go further back.

    During the trial of a canary, only the trial ends.

    Raises: NotFound: No snapshot was current before, or it was pruned. Errors of `promote`.
    """
    newest = store.alias_in_force(collection)
    history = list(store.alias_records(collection))
    if newest.canary:
        # The newest change started a trial, so that is the change to undo.
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
    # The target is valid for this epoch only.
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
    """Starts the trial of a canary alongside the current snapshot, or changes its share. Blocks.

    A running trial of the same snapshot keeps its rollout id. So when its share grows, the canary
    keeps the users and sessions it already serves; observations under the old share are discarded.

    Args:
        store: The store.
        collection: Name of the collection.
        canary: The snapshot to try; empty to try `rollout.policies` on the current one.
        share: Share of requests that it answers, above 0 and below 1.
        rollout: Options of the trial; rollout_id and start_time are set here. None uses defaults.
        expected_epoch, who, why, check, gate: See `promote`.
    Returns: The new record.
    Raises: InvalidRequest: The share or a limit is out of range, or the snapshot is already
        current.
        NotFound, SnapshotCorrupt, SnapshotMismatch, Conflict: See `promote`.
    """
    check_share(share)
    options = release_pb2.Rollout()
    if rollout is not None:
        options.CopyFrom(rollout)
    _check_options(options)
    newest = store.alias_in_force(collection)
    if options.policies and canary not in ("", newest.current):
        raise InvalidRequest(
            f"{canary} and policies cannot be tried together; try one after the other",
            field="rollout.policies",
        )
    canary = canary or newest.current
    if canary == newest.current and not options.policies:
        raise InvalidRequest(
            f"{canary} is already the current snapshot of {collection!r}; choose another canary",
            field="canary_snapshot_id",
        )
    check(store.manifest(collection, canary))
    continues = newest.canary == canary and newest.rollout.policies == options.policies
    if newest.canary and not continues and (options.policies or newest.rollout.policies):
        tried = "other policies are" if newest.rollout.policies else f"{newest.canary} is"
        raise Conflict(f"{tried} on trial in {collection!r}; promote or abort the trial first")
    if not continues and canary != newest.current:
        store.verify(collection, canary)
    options.rollout_id = newest.rollout.rollout_id if continues else secrets.token_hex(16)
    if continues:
        options.start_time.CopyFrom(newest.rollout.start_time)
    else:
        options.start_time.GetCurrentTime()
    record = snapshot_pb2.AliasRecord(
        current=newest.current,
        canary=canary,
        canary_share=share,
        rollout=options,
        who=who,
        why=why,
        gate=gate,
    )
    # The current snapshot was read from this epoch.
    return _add(store, collection, record, expected_epoch or newest.epoch)


def end_split(
    store: Store, collection: str, *, expected_epoch: int = 0, who: str = "", why: str = ""
) -> snapshot_pb2.AliasRecord:
    """Ends the trial of a canary: the current snapshot answers all requests again.

    Raises: NotFound: No canary is on trial. Conflict: See `promote`.
    """
    newest = store.alias_in_force(collection)
    if not newest.canary and expected_epoch in (0, newest.epoch):
        raise NotFound(f"no canary of {collection!r} is on trial alongside {newest.current}")
    record = snapshot_pb2.AliasRecord(current=newest.current, who=who, why=why)
    return _add(store, collection, record, expected_epoch or newest.epoch)


def drop(
    store: Store, collection: str, *, who: str = "", why: str = "", ended_epoch: int = 0
) -> snapshot_pb2.AliasRecord:
    """Ends a collection: nothing of it is served any more. Its files are not removed yet.

    Args:
        ended_epoch: Epoch of a drop that is known to have ended unfinished; 0 for none.
    Returns: The new record; whoever wrote it removes the files, see `nearline.store.removal`.
    Raises: NotFound: There is no such collection. Conflict: Another process is dropping it.
        NotReady: The store has gone.
    """
    newest = store.newest_alias_record(collection)
    if newest is None or (newest.dropped and not is_unfinished(store, collection)):
        raise NotFound(
            f"there is no collection {collection!r} in {store.url}; nearline collections list "
            "shows those that exist",
            field="collection",
        )
    if not has_records(store, collection):
        # They were read before, and never go.
        raise NotReady(f"{store.url} has no record of {collection!r} any more; is it mounted?")
    if newest.dropped and newest.epoch != ended_epoch:
        left_s = newest.create_time.seconds + _DROP_S - time.time()
        if left_s > 0:
            raise Conflict(
                f"{newest.who} is dropping {collection!r}; if that was interrupted, try again in "
                f"{left_s:.0f} s"
            )
    record = snapshot_pb2.AliasRecord(dropped=True, who=who, why=why)
    return _add(store, collection, record, newest.epoch)


def check_share(share: float) -> None:
    """Raises InvalidRequest if the share of a canary is out of range."""
    if not 0 < share < 1:
        raise InvalidRequest(
            f"canary_share is {share:g}; above 0 and below 1 is allowed. To send all requests to "
            "the snapshot, promote it",
            field="canary_share",
        )


def _check_options(options: release_pb2.Rollout) -> None:
    if options.split_by not in release_pb2.SplitBy.values():
        raise InvalidRequest(
            f"split_by {options.split_by} is not known; use one of "
            f"{', '.join(release_pb2.SplitBy.keys())}",
            field="rollout.split_by",
        )
    limits = options.limits
    for field, value in limits.ListFields():
        check_range(value, f"rollout.limits.{field.name}", LIMITS[f"RolloutLimits.{field.name}"])


def rollback_target(
    history: Iterable[snapshot_pb2.AliasRecord],
) -> snapshot_pb2.AliasRecord | None:
    """Returns the record that a rollback returns to; None if there is none.

    After promoting A, B, C it is B; after rolling back to B it is A; after then promoting D it is B
    again, which was current before D.

    Args:
        history: All records, newest first; no more are read than are needed.
    """
    left = iter(history)
    newest = next(left, None)
    if newest is None:
        return None
    start = newest.rollback_to_epoch or newest.epoch
    before = (
        record
        for record in left
        if record.epoch < start and record.current not in ("", newest.current)
    )
    return next(before, None)


def _add(
    store: Store, collection: str, record: snapshot_pb2.AliasRecord, expected_epoch: int
) -> snapshot_pb2.AliasRecord:
    _complete(record)
    while True:
        before = _newest(store, collection, expected_epoch)
        record.epoch = before.epoch + 1
        if not record.dropped:
            check_not_dropping(store, collection)
        try:
            store.create_alias_record(collection, record)
        except AlreadyExists:
            continue  # A concurrent change took this epoch: try the next one, or raise.
        if before.epoch:
            _check_not_pruned(store, collection, record, before)
        return record


def _check_not_pruned(
    store: Store,
    collection: str,
    record: snapshot_pb2.AliasRecord,
    before: snapshot_pb2.AliasRecord,
) -> None:
    """Takes a new record back if a snapshot that it names was pruned before it was written.

    Raises: NotFound: it was.
    """
    new = {record.current, record.canary} - {before.current, before.canary, ""}
    missing = new.difference(store.snapshot_ids(collection)) if new else new
    if not missing:
        return
    before.epoch, before.why = record.epoch + 1, f"{min(missing)} was pruned meanwhile"
    before.create_time.GetCurrentTime()
    with contextlib.suppress(AlreadyExists):  # Another change has replaced the record.
        store.create_alias_record(collection, before)
    raise NotFound(
        f"snapshot {min(missing)} of {collection!r} was pruned while it was checked; what was in "
        "force before is in force again. Build it again, or name another one"
    )


def _complete(record: snapshot_pb2.AliasRecord) -> None:
    record.who = (record.who or operator_name())[:_MAX_TEXT]
    record.why = record.why[:_MAX_TEXT]
    if record.gate.forced_because:
        record.gate.forced_because = record.gate.forced_because[:_MAX_TEXT]
    record.create_time.GetCurrentTime()


def check_not_dropping(store: Store, collection: str) -> None:
    """Raises Conflict while files of a dropped collection of this name are left."""
    newest = store.newest_alias_record(collection)
    if newest is not None and newest.dropped and is_unfinished(store, collection):
        raise Conflict(
            f"{collection!r} is being dropped; wait until that ends, or drop it again if it was "
            "interrupted"
        )


def check_epoch(store: Store, collection: str, expected: int) -> int:
    """Returns the current epoch; 0 if nothing is published.

    Args:
        store: The store.
        collection: Name of the collection.
        expected: Required epoch; 0 accepts any.
    Raises: Conflict: Another epoch is current.
    """
    return _newest(store, collection, expected).epoch


def _newest(store: Store, collection: str, expected: int) -> snapshot_pb2.AliasRecord:
    """Returns the newest record, or an empty one; see `check_epoch`."""
    newest = store.newest_alias_record(collection) or snapshot_pb2.AliasRecord()
    if expected and newest.epoch != expected:
        raise Conflict(
            f"the current epoch of {collection!r} is {newest.epoch}, but {expected} was expected: "
            "the aliases have changed. Check them and decide again"
        )
    return newest


def operator_name() -> str:
    """Returns user and host of this process, for alias records."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # The user of a container may have no name.
        return f"{os.getuid()}@{socket.gethostname()}"
