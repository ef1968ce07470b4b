"""How much memory may still be taken, and whether a snapshot fits in."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nearline.errors import Overloaded
from nearline.v1 import snapshot_pb2

# A first guess at what is wanted beside the files themselves: maps, caches, the heap of a search.
HEADROOM = 1.2
_SYSTEM = Path("/")


def snapshot_bytes(manifest: snapshot_pb2.Manifest, numbers: Collection[int] | None) -> int:
    """Sums the files that a process with these shards loads; None: all shards."""
    others = () if numbers is None else [s.shard for s in manifest.shards if s.shard not in numbers]
    left_out = tuple(f"shards/{number:03d}/" for number in others)
    return sum(entry.bytes for entry in manifest.files if not entry.path.startswith(left_out))


def check_memory(snapshot_id: str, needed_bytes: int, headroom: float) -> None:
    """Refuses a load for which there is no room; what is served already stays.

    Args:
        snapshot_id: For the error.
        needed_bytes: Bytes of the files to load.
        headroom: Free memory wanted, as a multiple of that; 0: do not look.
    Raises: Overloaded: names what is free and what is needed.
    """
    free = free_bytes() if headroom and needed_bytes else None
    if free is not None and free < headroom * needed_bytes:
        raise Overloaded(
            f"snapshot {snapshot_id} has {needed_bytes} bytes to load, which takes {headroom:g} x "
            f"as many free: {round(headroom * needed_bytes)}; {free} are free. Free some memory, "
            "spread the shards over more machines, or set --load-headroom lower"
        )


def free_bytes(root: Path = _SYSTEM) -> int | None:
    """Returns the bytes that this process could still take; None where the system does not tell.

    The smaller of what the machine has available and what the control group leaves; page cache
    that can be dropped counts as free in both.

    Args:
        root: Where proc and sys lie.
    Source: proc_meminfo(5), MemAvailable; the kernel's cgroup-v2.rst, memory.max and memory.stat.
    """
    limits = [left for left in (_machine(root), _group(root)) if left is not None]
    return min(limits, default=None)


def _machine(root: Path) -> int | None:
    kibibytes = _fields(root / "proc/meminfo").get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _group(root: Path) -> int | None:
    left: list[int] = []
    for folder in _group_folders(root):
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit is not None and used is not None:
            droppable = _fields(folder / "memory.stat").get("inactive_file", 0)
            left.append(max(0, limit - used + droppable))
    return min(left, default=None)


def _group_folders(root: Path) -> list[Path]:
    """Returns the folders of this process's control group and of those around it."""
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
    """Reads lines of a name and a number."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines)
    return {one[0]: int(one[1]) for one in parts if len(one) >= 2 and one[1].isdigit()}
