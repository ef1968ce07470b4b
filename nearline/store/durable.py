"""Writes that survive a power failure, and disk errors that name the remedy."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path

from nearline.errors import SnapshotCorrupt, StoreError
from nearline.store.files import Digest

_HASH_BLOCK_BYTES = 1 << 20
_SHORT_WRITE = re.compile(r"[0-9]+ requested and [0-9]+ written")


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in lower-case hex; reads it in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_digest(location: object, found: Digest | None, expected: Digest) -> None:
    """Compares a file with its manifest entry.

    Args:
        location: Path or URL of the file, for the error.
        found: Its digest; None if it is missing.
        expected: The digest in the manifest.
    Raises: SnapshotCorrupt: names both sizes or both hashes.
    """
    size = None if found is None else found.bytes
    if size != expected.bytes:
        raise SnapshotCorrupt(
            f"{location} has {'no' if size is None else size} bytes, the manifest says "
            f"{expected.bytes}; restore the file or rebuild the snapshot"
        )
    if found is not None and found.sha256 != expected.sha256:
        raise SnapshotCorrupt(
            f"{location} has SHA-256 {found.sha256}, the manifest says {expected.sha256}; "
            "restore the file or rebuild the snapshot"
        )


def remove_folder(folder: Path) -> None:
    """Removes a folder, if there is one. Other processes may remove it at the same time."""
    while folder.is_dir():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def write_durably(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Writes a file, or replaces it, and forces it to disk; a failure leaves what was there before.

    Args:
        mode: Permissions of a new file; those that the umask forbids are left out.
    """
    # A reader, or the next run of a killed process, never finds a part of a file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Forces the directory entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class store_errors:
    """Converts an OSError inside the block to a StoreError that names the path and the remedy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        problem, number = error.strerror or str(error), error.errno or 0
        if _SHORT_WRITE.fullmatch(problem):
            # NumPy says so much only. A write is cut short where the disk is full.
            problem, number = f"a file could be written only in part ({problem})", errno.ENOSPC
        remedy = {
            errno.ENOSPC: "free some space or choose another --store",
            errno.EDQUOT: "raise the quota or choose another --store",
            errno.EFBIG: "allow larger files (ulimit -f) or choose another --store",
            errno.EACCES: "make it writable for this user or choose another --store",
            errno.EROFS: "the file system is read-only; choose another --store",
            errno.EPERM: "make it writable for this user or choose another --store",
        }.get(number, "check the path and the disk")
        raise StoreError(f"store {self._path}: {problem}; {remedy}") from error
