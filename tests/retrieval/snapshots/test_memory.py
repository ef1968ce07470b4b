"""Free memory of made-up systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.errors import Overloaded
from nearline.v1 import snapshot_pb2
from retrieval.snapshots.memory import check_memory, free_bytes, snapshot_bytes

GIB = 1 << 30


def system(root: Path, available_kib: int, group: dict[str, dict[str, str]]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {available_kib} kB\n")
    (root / "proc/self/cgroup").write_text("0::/pods/mine\n")
    for folder, files in group.items():
        place = root / "sys/fs/cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "free"),
    [
        ({}, 8 * GIB),
        ({"pods/mine": {"memory.max": "max\n", "memory.current": "5\n"}}, 8 * GIB),
        ({"pods/mine": {"memory.max": f"{3 * GIB}\n", "memory.current": f"{GIB}\n"}}, 2 * GIB),
        (
            {
                "pods/mine": {
                    "memory.max": f"{3 * GIB}\n",
                    "memory.current": f"{3 * GIB}\n",
                    "memory.stat": f"anon 7\ninactive_file {GIB}\n",
                }
            },
            GIB,
        ),
        ({"pods": {"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"}}, 0),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, group: dict[str, dict[str, str]], free: int
) -> None:
    assert free_bytes(system(tmp_path, 8 << 20, group)) == free


def test_unreported_memory_disables_the_check(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None


def test_only_the_files_of_the_shards_to_load_count() -> None:
    manifest = snapshot_pb2.Manifest(
        shards=[snapshot_pb2.ShardEntry(shard=number) for number in range(3)],
        files=[
            snapshot_pb2.FileEntry(path="golden/queries.arrow", bytes=1),
            *(
                snapshot_pb2.FileEntry(path=f"shards/{number:03d}/dense.faiss", bytes=10**number)
                for number in range(1, 3)
            ),
        ],
    )
    assert snapshot_bytes(manifest, None) == 111
    assert snapshot_bytes(manifest, {1, 7}) == 11


def test_the_error_names_free_and_required_bytes() -> None:
    with pytest.raises(
        Overloaded, match=rf"{10**15} bytes.*1.2 x.*{12 * 10**14}, but \d+ are free"
    ):
        check_memory("s", 10**15, 1.2)
    check_memory("s", 10**15, 0)
    check_memory("s", 1, 1.2)
