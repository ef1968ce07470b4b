"""Checks that a snapshot fits into the available memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from nearline.errors import Overloaded
from nearline.v1 import snapshot_pb2

# Estimated need relative to the files: also maps, caches and the heap of searches.
HEADROOM = 1.2
_SYSTEM = Path("/")


class MemoryLimit(NamedTuple):
    """A limit of the memory of this process: bytes that are free, and bytes in all."""

    free: int
    total: int


def snapshot_bytes(manifest: snapshot_pb2.Manifest, numbers: Collection[int] | None) -> int:
    """Returns the bytes that a process with these shards loads; None means all shards."""
    others = () if numbers is None else [s.shard for s in manifest.shards if s.shard not in numbers]
    left_out = tuple(f"shards/{number:03d}/" for number in others)
    return sum(entry.bytes for entry in manifest.files if not entry.path.startswith(left_out))


def check_memory(snapshot_id: str, needed_bytes: int, headroom: float) -> None:
    """Raises if there is not enough memory for a load.

    Args:
        snapshot_id: Id of the snapshot, for the error.
        needed_bytes: Bytes of the files to load.
        headroom: Required free memory as a multiple of `needed_bytes`; 0 disables the check.
    Raises: Overloaded: Names the free and the required bytes.
    """
    free = free_bytes() if headroom and needed_bytes else None
    if free is not None and free < headroom * needed_bytes:
        raise Overloaded(
            f"loading snapshot {snapshot_id} ({needed_bytes} bytes) requires {headroom:g} x as "
            f"many bytes free: {round(headroom * needed_bytes)}, but {free} are free. Free some "
            "memory, spread the shards over more machines, or lower --load-headroom"
        )


def free_bytes(root: Path = _SYSTEM) -> int | None:
    """Returns the bytes that this process can still allocate; None if the system does not say.

    See `memory_limits`; root: Folder that contains proc and sys.
    """
    return min((one.free for one in memory_limits(root)), default=None)


def memory_limits(root: Path = _SYSTEM) -> list[MemoryLimit]:
    """Returns the memory of the machine, and that of each control group with a limit.

    Reclaimable page cache counts as free. The result is empty if the system does not say.

    Args:
        root: Folder that contains proc and sys.
    Source: proc_meminfo(5), MemAvailable; the kernel's cgroup-v2.rst, memory.max and memory.stat.
    """
    machine = _fields(root / "proc/meminfo")
    found = []
    if "MemAvailable:" in machine and "MemTotal:" in machine:
        found.append(MemoryLimit(machine["MemAvailable:"] * 1024, machine["MemTotal:"] * 1024))
    for folder in _group_folders(root):
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit is not None and used is not None:
            droppable = _fields(folder / "memory.stat").get("inactive_file", 0)
            found.append(MemoryLimit(max(0, limit - used + droppable), limit))
    return found


def _group_folders(root: Path) -> list[Path]:
    """Returns the folders of the control group of this process and of its parents."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return [top]
    paths = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    mine = [top / path for path in paths if ".." not in path]
    return [top, *mine, *(p for one in mine for p in one.parents if top in p.parents)]


def _number(path: Path) -> int | None:
    try:
        text = path.read_text("utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """Reads lines that consist of a name and a number."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines)
    return {one[0]: int(one[1]) for one in parts if len(one) >= 2 and one[1].isdigit()}
