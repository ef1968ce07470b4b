"""Files that a process has open or mapped."""

from __future__ import annotations

import os
from pathlib import Path


def files_in_use(pid: int, folder: str) -> set[str]:
    """Returns the names of the files that a process has open or mapped, by a part of their path."""
    place = Path(f"/proc/{pid}")
    links = [os.readlink(one) for one in (place / "fd").iterdir() if one.is_symlink()]
    mapped = [line.rpartition(" ")[2] for line in (place / "maps").read_text().splitlines()]
    return {Path(one).name for one in (*links, *mapped) if folder in one}
