"""Verdicts of the release gate, read from its reports in the store, for changes of the aliases.

Layout: <store>/<collection>/gate/reports/<snapshot id>-<n>.json; only ever created.
"""

from __future__ import annotations

import json
import re

from nearline.errors import GateFailed, NotFound, SnapshotCorrupt
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import release_pb2, snapshot_pb2

NOT_JUDGED = "not judged"


def reports_folder(collection: str) -> str:
    """Returns the path of the folder of a collection's reports in the store."""
    return f"{check_collection(collection)}/gate/reports"


def newest_number(store: Store, collection: str, snapshot_id: str) -> int:
    """Returns the number of the newest report on a snapshot; 0 if there is none."""
    ours = re.compile(rf"{re.escape(snapshot_id)}-([0-9]+)\.json")
    names = store.files.names(reports_folder(collection), after=f"{snapshot_id}-")
    return max((int(match[1]) for name in names if (match := ours.fullmatch(name))), default=0)


def require_gate_pass(
    store: Store, collection: str, snapshot_id: str, forced_because: str = ""
) -> tuple[release_pb2.GateVerdict, int]:
    """Returns the gate's verdict on a snapshot that is about to answer requests.

    The verdict comes from the newest report in the store, which must compare the snapshot with the
    current one. A canary on trial keeps the verdict with which its trial began.

    Args:
        forced_because: Reason to accept the snapshot although it did not pass. Optional.
    Returns: The verdict, and the epoch for which it holds; 0 if nothing is published.
    Raises: NotFound: There is no such snapshot. GateFailed: The snapshot has not been judged
        against the current one or did not pass, and no reason was given. SnapshotCorrupt: The
        report cannot be read.
    """
    store.snapshot_folder(collection, snapshot_id)  # Raises NotFound.
    try:
        in_force = store.alias_in_force(collection)
    except NotFound:
        in_force = snapshot_pb2.AliasRecord()
    tried = in_force.gate if in_force.canary == snapshot_id else release_pb2.GateVerdict()
    if tried.passed or tried.forced_because:
        return tried, in_force.epoch
    verdict, problem = _stored_verdict(store, collection, snapshot_id, in_force.current)
    if problem and not forced_because.strip():
        raise GateFailed(
            f"{problem}. Judge it with nearline snapshots gate {snapshot_id} --collection "
            f"{collection}, fix what it finds, or promote it anyway with --force --why REASON "
            "(gate.forced_because in a request)"
        )
    verdict.forced_because = forced_because if problem else ""
    return verdict, in_force.epoch


def _stored_verdict(
    store: Store, collection: str, snapshot_id: str, current: str
) -> tuple[release_pb2.GateVerdict, str]:
    """Returns the verdict of the newest report, and why it does not suffice; empty if it does."""
    number = newest_number(store, collection, snapshot_id)
    if not number:
        problem = f"the release gate has not judged snapshot {snapshot_id}"
        return release_pb2.GateVerdict(failed=[NOT_JUDGED]), problem
    path = f"{reports_folder(collection)}/{snapshot_id}-{number}.json"
    try:
        report = json.loads(store.files.read(path))
        verdict = release_pb2.GateVerdict(
            passed=report["passed"],
            failed=report["failed"],
            thresholds=report["thresholds"],
            report=path,
        )
        live_id = str(report["live_id"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotCorrupt(
            f"{store.url}/{path} cannot be read: {error!r}; judge the snapshot again with nearline "
            f"snapshots gate {snapshot_id} --collection {collection}"
        ) from error
    if not verdict.passed:
        failed = ", ".join(verdict.failed)
        return verdict, f"the release gate refuses snapshot {snapshot_id}: {failed}; see {path}"
    if current not in ("", snapshot_id, live_id):
        verdict.passed = False
        verdict.failed[:] = [NOT_JUDGED]
        compared = f"compared it with {live_id}" if live_id else "compared it with none"
        return verdict, (
            f"the release gate has not judged snapshot {snapshot_id} against the current one, "
            f"{current}: {path} {compared}"
        )
    return verdict, ""
