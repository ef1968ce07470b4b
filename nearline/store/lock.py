"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nearline.errors import Conflict
from nearline.store.durable import store_errors


@contextlib.contextmanager
def lock_folder(folder: Path, busy: str) -> Iterator[None]:
    """Makes a folder and holds its lock for the length of the block; a killed process lets go.

    Args:
        busy: Says who else works in it, and the remedy.
    Raises: Conflict: another process does. StoreError: it cannot be made.
    """
    with store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(busy) from error
        yield
    finally:
        os.close(descriptor)
