"""Free space on the disks that services write to."""

from __future__ import annotations

import shutil
from pathlib import Path

# With less, the next writes fail: Redis starts segments of this size, and then ends.
LOW_BYTES = 64 << 20


def nearest_folder(folder: Path) -> Path:
    """Returns a folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_bytes(folder: Path) -> int | None:
    """Returns the free bytes on the disk of a folder; None if that is unknown.

    Args:
        folder: A folder that may be missing; then its nearest parent counts.
    """
    try:
        return shutil.disk_usage(nearest_folder(folder)).free
    except OSError:
        return None


def disk_problem(folder: Path) -> str:
    """Returns that the disk of a folder is full, and the remedy; empty if it has space."""
    return describe_shortage(folder, free_bytes(folder))


def describe_shortage(folder: Path, free: int | None) -> str:
    """Returns that this many free bytes are too few, and the remedy; empty if they suffice."""
    if free is None or free >= LOW_BYTES:
        return ""
    return (
        f"the disk of {folder} is full: {free / (1 << 20):,.1f} MiB are free, "
        f"{LOW_BYTES >> 20} MiB are needed. Remove files, for example with `nearline snapshots "
        "prune`, or enlarge it; the services then recover without a restart"
    )
