"""An exclusive lock on a folder, held by one process at a time."""

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
    """Creates a folder and holds its lock during the block; a killed process releases it.

    Args:
        folder: The folder.
        busy: Error message if another process holds the lock, with the remedy.
    Raises: Conflict: another process holds the lock. StoreError: the folder cannot be created.
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
