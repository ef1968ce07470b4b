"""Memory of large messages is returned once they have stopped."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nearline import allocator
from nearline.allocator import LARGE_BYTES, MemoryReturn
from tests.waits import until


class Library:
    """Counts what is asked of the C library."""

    def __init__(self) -> None:
        self.trims: list[int] = []

    def malloc_trim(self, kept: int) -> int:
        self.trims.append(kept)
        return 1


@pytest.fixture(name="trims")
def give_trims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    library = Library()
    monkeypatch.setattr(allocator, "_library", lambda: library)
    monkeypatch.setattr(allocator, "_DELAYS_S", (0.02, 0.02))
    return library.trims


async def test_a_large_message_is_followed_by_a_few_returns_of_memory(trims: list[int]) -> None:
    memory = MemoryReturn()
    memory.note_message(LARGE_BYTES)
    await until(lambda: len(trims) >= 2)
    assert memory._planned is None
    # Those of another one begin again.
    memory.note_message(LARGE_BYTES)
    memory.note_message(LARGE_BYTES)
    await until(lambda: len(trims) >= 4)
    assert trims == [0] * 4 and memory._planned is None


async def test_small_messages_cost_nothing(trims: list[int]) -> None:
    memory = MemoryReturn()
    for _ in range(1_000):
        memory.note_message(LARGE_BYTES - 1)
    assert memory._planned is None and not trims


_FREE_LARGE = """
from pathlib import Path
from nearline.allocator import return_large_blocks
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
return_large_blocks()
before = resident()
for mebibytes in (30, 20, 10, 5) * 3:
    blocks = [bytearray(mebibytes << 20) for _ in range(3)]
    kept = bytes(100)
    blocks.clear()
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is that of Linux")
def test_large_blocks_leave_nothing_behind() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _FREE_LARGE], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) < 5
