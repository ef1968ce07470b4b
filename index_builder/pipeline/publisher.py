"""Makes a snapshot folder visible whole, and names it in the alias history."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from index_builder.options.build_options import Gate
from nearline.contract import Embedder
from nearline.errors import Conflict, NotFound
from nearline.snapshot import MANIFEST, Store, message_to_json
from nearline.store.durable import sha256_of, store_errors, write_durably
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.snapshots import aliases

_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def temporary_snapshot(store: Store, collection: str, snapshot_id: str) -> Iterator[Path]:
    """Makes the folder that a snapshot is written in; it is gone after the block if still there."""
    folder = store.snapshots_folder(collection) / f"{_TEMPORARY}{snapshot_id}"
    remove_temporary(store, collection, snapshot_id)
    with store_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_temporary(store: Store, collection: str, snapshot_id: str) -> None:
    """Removes what a killed build left of a snapshot."""
    folder = store.snapshots_folder(collection) / f"{_TEMPORARY}{snapshot_id}"
    shutil.rmtree(folder, ignore_errors=True)
    if snapshot_id not in store.snapshot_ids(collection):
        store.remove_snapshot(collection, snapshot_id)  # Uploaded in part.


def list_files(folder: Path) -> list[snapshot_pb2.FileEntry]:
    """Returns size and SHA-256 of every file below a folder, by path."""
    return [
        snapshot_pb2.FileEntry(
            path=path.relative_to(folder).as_posix(),
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def publish(store: Store, folder: Path, manifest: snapshot_pb2.Manifest) -> Path:
    """Writes the manifest, forces everything to disk and gives the folder its final name.

    Returns: The snapshot's folder.
    Raises: StoreError.
    """
    with store_errors(folder):
        write_durably(folder / MANIFEST, message_to_json(manifest).encode())
    return store.publish(folder, manifest.collection, manifest.snapshot_id)


class Publication(NamedTuple):
    """What became of a snapshot that was to go live.

    epoch: From which on it is current; None: the gate refused it. verdict: What the gate said;
    None: it was not asked.
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
    """Makes a snapshot current that has just been published, where the gate passes it.

    Args:
        gate: Asked first; None: there is none.
        embedder: That it was built with.
        expected_epoch: As in `promote`.
    Raises: Conflict: as `promote`. Whatever the gate raises.
    """
    verdict = None
    if gate is not None:
        # Before what takes minutes.
        _check_no_canary(store, manifest)
        verdict = await gate(store, manifest, embedder)
        if not (verdict.passed or verdict.forced_because):
            return Publication(None, verdict)
    why = f"nearline build: {manifest.documents} documents"
    return Publication(promote(store, manifest, why, expected_epoch, verdict), verdict)


def _check_no_canary(store: Store, manifest: snapshot_pb2.Manifest) -> None:
    """Raises Conflict where a canary is tried: nobody decided that a build should end that."""
    try:
        record = store.alias_in_force(manifest.collection)
    except NotFound:
        return
    if record.canary:
        new = manifest.snapshot_id
        raise Conflict(
            f"snapshot {new} is built, but {record.canary} is tried beside {record.current}, and "
            f"that would end; promote or abort it first (nearline rollout), then nearline "
            f"snapshots promote {new}"
        )


def promote(
    store: Store,
    manifest: snapshot_pb2.Manifest,
    why: str,
    expected_epoch: int = 0,
    gate: release_pb2.GateVerdict | None = None,
) -> int:
    """Makes the alias record that names the snapshot current.

    Args:
        expected_epoch: Refuse unless this is the epoch in force; 0: whatever it is.
        gate: What the gate said of it; None: it was not asked.
    Returns: Its epoch.
    Raises: Conflict: another epoch is in force, or a canary is tried, which this would end.
    """
    _check_no_canary(store, manifest)
    # The build has just written the files and their hashes: reading them again shows nothing new.
    return aliases.promote(
        store,
        manifest.collection,
        manifest.snapshot_id,
        expected_epoch=expected_epoch,
        why=why,
        verify=False,
        gate=gate,
    ).epoch
