"""Checks that a training fits into the free memory before it begins."""

from __future__ import annotations

from index_builder.behaviour.ease import MOST_ITEMS
from index_builder.interactions.records import Interactions
from nearline.errors import InvalidRequest
from retrieval.snapshots.memory import free_bytes

# Measured with `benchmarks.training_scale`: rows and their copies, matrices and windows.
_ROW_BYTES = 250
# Of each item and user: 64 factors, their copies in order, and ids.
_NUMBERED_BYTES = 1_500
# Of each cell of the matrix that EASE inverts: two float64 and one float32.
_INVERTED_BYTES = 20
# Blocks and lists that are not mapped from files: they grow with the rows up to a limit.
_MAX_BLOCK_BYTES = 1 << 30
_BLOCK_ROW_BYTES = 4_096


def needed_bytes(rows: int, users: int, items: int) -> int:
    """Returns an estimate of the memory of a training; lists of items are in files."""
    inverted = min(users, items) if items <= MOST_ITEMS else 0
    numbered = _NUMBERED_BYTES * (users + items)
    blocks = min(_MAX_BLOCK_BYTES, _BLOCK_ROW_BYTES * rows)
    return blocks + _ROW_BYTES * rows + numbered + _INVERTED_BYTES * inverted**2


def check_memory(rows: Interactions, free: int | None = None) -> None:
    """Raises InvalidRequest if a training on some rows needs more memory than is free.

    Args:
        free: Free bytes; None asks the system, and checks nothing if it does not say.
    """
    free = free_bytes() if free is None else free
    needed = needed_bytes(len(rows.user), len(rows.users), len(rows.items))
    if free is not None and needed > free:
        raise InvalidRequest(
            f"training on {len(rows.user)} interactions of {len(rows.users)} users with "
            f"{len(rows.items)} items needs about {needed / 2**30:.1f} GiB of memory, but "
            f"{free / 2**30:.1f} GiB are free; leave out old interactions with --keep-days, pass "
            "fewer, or build on a machine with more memory",
            field="interactions",
        )
