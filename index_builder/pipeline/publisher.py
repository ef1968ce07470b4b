"""Promotion of a published snapshot in the alias history."""

from __future__ import annotations

from typing import NamedTuple

from index_builder.options.build_options import Gate
from nearline.contract import Embedder
from nearline.counts import counted
from nearline.errors import Conflict, NotFound
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.snapshots import aliases


class Publication(NamedTuple):
    """The outcome of a promotion.

    epoch: Epoch of the promotion; None if the gate refused it.
    verdict: Verdict of the gate; None without a gate.
    """

    epoch: int | None
    verdict: release_pb2.GateVerdict | None


async def go_live(
    store: Store,
    manifest: snapshot_pb2.Manifest,
    gate: Gate | None,
    embedder: Embedder | None,
    expected_epoch: int,
) -> Publication:
    """Makes a newly published snapshot current if it passes the gate.

    Args:
        gate: Optional; judges the snapshot first.
        embedder: The embedder of the build.
        expected_epoch: As in `promote`.
    Raises: Conflict: as `promote`. Errors of the gate.
    """
    verdict = None
    if gate is not None:
        # Before the gate, which takes minutes.
        _check_no_canary(store, manifest)
        verdict = await gate(store, manifest, embedder)
        if not (verdict.passed or verdict.forced_because):
            return Publication(None, verdict)
    why = f"nearline build: {counted(manifest.documents, 'document')}"
    return Publication(promote(store, manifest, why, expected_epoch, verdict), verdict)


def _check_no_canary(store: Store, manifest: snapshot_pb2.Manifest) -> int:
    """Raises Conflict if a canary is on trial: a build must not end a trial on its own.

    Returns: The current epoch; 0 if nothing is published.
    """
    try:
        record = store.alias_in_force(manifest.collection)
    except NotFound:
        return 0
    if record.canary:
        new = manifest.snapshot_id
        raise Conflict(
            f"snapshot {new} is built, but promoting it would end the trial of {record.canary} "
            f"against {record.current}; promote or abort that first (nearline rollout), then run "
            f"nearline snapshots promote {new}"
        )
    return record.epoch


def promote(
    store: Store,
    manifest: snapshot_pb2.Manifest,
    why: str,
    expected_epoch: int = 0,
    gate: release_pb2.GateVerdict | None = None,
) -> int:
    """Adds the alias record that makes the snapshot current.

    Args:
        expected_epoch: Refuse unless this is the current epoch; 0 accepts any.
        gate: Verdict of the gate; None without a gate.
    Returns: The epoch of the record.
    Raises: Conflict: the current epoch is a different one, or a canary is on trial, which the
        promotion would end.
    """
    while True:
        epoch = _check_no_canary(store, manifest)
        try:
            return aliases.promote(
                store,
                manifest.collection,
                manifest.snapshot_id,
                # A trial that begins in between must not be ended either.
                expected_epoch=expected_epoch or epoch,
                why=why,
                # The build has just written and hashed the files.
                verify=False,
                gate=gate,
            ).epoch
        except Conflict:
            # Another promotion: what is current now decides.
            if expected_epoch or _check_no_canary(store, manifest) == epoch:
                raise
