"""A small disk of its own for a test, which can be filled and freed again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_FILLER = "filler"
_ATTEMPTS = 20


class SmallDisk:
    """A mounted tmpfs. folder: Where it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leaves no space on the disk for the length of the block."""
        filler = self.folder / _FILLER
        with filler.open("wb") as file:
            size = 0
            # Others may write or delete meanwhile.
            for _ in range(_ATTEMPTS):
                free = _free_bytes(self.folder)
                if not free:
                    break
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), size, free)
                    size += free
        try:
            yield
        finally:
            filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk | None]:
    """Mounts a small disk on an empty folder; gives None where this user may not mount."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "nearline-test", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that a test has killed may take a moment to close its files.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
