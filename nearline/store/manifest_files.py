"""The files that a manifest lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nearline.errors import SnapshotCorrupt
from nearline.store.durable import sha256_of
from nearline.store.files import Digest
from nearline.v1 import snapshot_pb2


def list_files(folder: Path) -> list[snapshot_pb2.FileEntry]:
    """Returns the size and SHA-256 of every file below a folder, in order of paths."""
    return [file_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]


def file_entry(path: Path, folder: Path) -> snapshot_pb2.FileEntry:
    """Returns the size and SHA-256 of a file below a folder."""
    return snapshot_pb2.FileEntry(
        path=path.relative_to(folder).as_posix(),
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )


def listed_files(
    manifest: snapshot_pb2.Manifest, prefixes: Sequence[str] = ("",)
) -> Iterator[tuple[str, Digest]]:
    """Yields the path of each listed file, below the snapshot's folder, and its digest.

    Args:
        manifest: The manifest; untrusted.
        prefixes: Prefixes of the requested paths.
    Raises: SnapshotCorrupt: a path leaves the snapshot's folder.
    """
    for entry in manifest.files:
        if not entry.path.startswith(tuple(prefixes)):
            continue
        if not set(entry.path.split("/")).isdisjoint({"", ".", ".."}):
            raise SnapshotCorrupt(
                f"the manifest of {manifest.snapshot_id} names a file {entry.path!r}, which is "
                "outside the snapshot; rebuild it"
            )
        yield entry.path, Digest(entry.bytes, entry.sha256)
