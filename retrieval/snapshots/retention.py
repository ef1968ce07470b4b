"""Prunes snapshots of a collection from the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from nearline.errors import InvalidRequest, NearlineError, NotFound
from nearline.store.durable import remove_folder, store_errors
from nearline.store.snapshot import Store, check_collection
from nearline.store.work import remove_work, stored_work
from retrieval.changelog import retention
from retrieval.snapshots.aliases import rollback_target
from retrieval.snapshots.proposals import read_proposals, remove_proposal

MIN_AGE = timedelta(hours=1)
UPLOAD_GRACE = timedelta(days=1)
# A build that was interrupted may be continued for so long after it last added work.
WORK_GRACE = timedelta(days=7)
_TEMPORARY = ".tmp-*"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneCandidate:
    """A snapshot or the remains of a killed build, and whether to keep it.

    kept: Why it is kept; empty if it is to be removed.
    folder: Temporary folder of a killed build; None for a snapshot.
    work: Folder in the store of the work of an unfinished build; empty for anything else.
    """

    name: str
    bytes: int
    kept: str
    folder: Path | None = None
    work: str = ""


def plan_prune(
    store: Store,
    collection: str,
    keep: int,
    *,
    min_age: timedelta = MIN_AGE,
    now: datetime | None = None,
) -> list[PruneCandidate]:
    """Decides which snapshots to remove; newest first, remains of killed builds last.

    These are kept: the snapshots that the current alias record names, the target of a rollback,
    those that upkeep proposes to serve, the newest `keep` others, those younger than `min_age`,
    since a build may be about to promote them, and work that an unfinished build added to within a
    week.

    Args:
        store: The store.
        collection: Name of the collection.
        keep: Number of newest snapshots to keep besides those that the aliases need; >= 0.
        min_age: Snapshots younger than this are kept.
        now: Current time; None uses the clock.
    Raises: NotFound: Nothing is published, and no build was begun. InvalidRequest: `keep` is
        negative.
    """
    if keep < 0:
        raise InvalidRequest(f"keep is {keep}; 0 or more is required", field="keep")
    now = now or datetime.now(UTC)
    work = _unfinished_work(store, collection, now)
    try:
        in_force = store.alias_in_force(collection)
    except NotFound:
        if not work:
            raise
        return work
    target = rollback_target(store.alias_records(collection))
    reasons = {in_force.canary: "canary", in_force.current: "current"}
    if target is not None:
        reasons.setdefault(target.current, "target of a rollback")
    for proposal in read_proposals(store, collection):
        if proposal.is_pending:
            reasons.setdefault(proposal.snapshot_id, "proposed")
    decided = []
    spare = keep
    for snapshot_id in store.snapshot_ids(collection):
        created, size = _creation_and_size(store, collection, snapshot_id)
        kept = reasons.get(snapshot_id, "")
        if not kept and spare > 0:
            spare -= 1
            kept = f"one of the newest {keep}"
        elif not kept and now - created < min_age:
            kept = "new: a build may still promote it"
        decided.append(PruneCandidate(name=snapshot_id, bytes=size, kept=kept))
    return decided + _orphans(store, collection, now) + work


def prune(store: Store, collection: str, planned: Sequence[PruneCandidate]) -> None:
    """Removes the snapshots of a plan, manifests first, so that no partial snapshot is visible.

    Then drops archived changes that every remaining snapshot contains, so that deleted texts are
    really gone.
    """
    for one in planned:
        if one.kept:
            continue
        if one.work:
            remove_work(store.files, one.work)
        elif one.folder is None:
            # The snapshot may have been promoted since the plan was made.
            if store.remove_unless(
                collection, one.name, partial(_is_named, store, collection, one.name)
            ):
                remove_proposal(store, collection, one.name)
        else:
            with store_errors(one.folder):
                remove_folder(one.folder)
    if any(not one.kept and not one.work for one in planned):
        retention.drop_archived_segments(store, collection)


def remove_unused(store: Store, collection: str, snapshot_id: str) -> None:
    """Removes one snapshot, of any age, unless an alias or a rollback needs it."""
    planned = plan_prune(store, collection, 0, min_age=timedelta(0))
    prune(store, collection, [one for one in planned if one.name == snapshot_id])


def _is_named(store: Store, collection: str, snapshot_id: str) -> bool:
    in_force = store.alias_in_force(collection)
    return snapshot_id in (in_force.current, in_force.canary)


def _size_and_time(path: Path) -> tuple[int, float]:
    """Returns the bytes of a file, and when it changed; a running build may remove it any time."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, time.time()
    return status.st_size, status.st_mtime


def _creation_and_size(store: Store, collection: str, snapshot_id: str) -> tuple[datetime, int]:
    """Returns the creation time and the bytes of a snapshot."""
    by_name = _time_in_id(snapshot_id)
    try:
        manifest = store.manifest(collection, snapshot_id)
    except NearlineError:
        # Without a readable manifest, the id still contains the time.
        return by_name, 0
    size = sum(entry.bytes for entry in manifest.files)
    if not manifest.HasField("create_time"):
        return by_name, size
    return manifest.create_time.ToDatetime(UTC), size


def _time_in_id(snapshot_id: str) -> datetime:
    """Returns the time in the id of a snapshot."""
    return datetime.strptime(snapshot_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _unfinished_work(store: Store, collection: str, now: datetime) -> list[PruneCandidate]:
    """Finds the work of unfinished builds, which another machine may go on with."""
    return [
        PruneCandidate(
            name=one.path.removeprefix(f"{collection}/"),
            bytes=one.bytes,
            kept="a build may go on with it" if now - one.time < WORK_GRACE else "",
            work=one.path,
        )
        for one in stored_work(store.files, check_collection(collection))
    ]


def _orphans(store: Store, collection: str, now: datetime) -> list[PruneCandidate]:
    """Finds the remains of killed builds; keeps those that are still being written to."""
    found = [
        PruneCandidate(name=name, bytes=0, kept="its upload may still run" if young else "")
        for name in store.unfinished_ids(collection)
        for young in [now - _time_in_id(name) < UPLOAD_GRACE]
    ]
    for folder in sorted(store.snapshots_folder(collection).glob(_TEMPORARY)):
        sizes, times_s = zip(*map(_size_and_time, (folder, *folder.rglob("*"))), strict=True)
        quiet = now - datetime.fromtimestamp(max(times_s), UTC) >= MIN_AGE
        found.append(
            PruneCandidate(
                name=folder.name,
                bytes=sum(sizes),
                kept="" if quiet else "written to within the hour",
                folder=folder,
            )
        )
    return found
