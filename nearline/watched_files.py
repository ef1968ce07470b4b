"""Files that are read again when they change."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from nearline.errors import SettingsError

_Contents = TypeVar("_Contents")
_LOOK_EVERY_S = 1.0
# Reading a megabyte of TOML takes a second.
_MAX_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def read_text(path: Path) -> str:
    """Returns the text of a file.

    Raises: ValueError: it is empty, as one that is being written, or has more than 1 MiB. OSError.
    """
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes; {_MAX_BYTES:,} are allowed")
    if not size:
        raise ValueError("it is empty; a comment says that this is meant")
    return path.read_text("utf-8")


class WatchedFiles(Generic[_Contents]):
    """Contents of files; safe to share between threads.

    Files that cannot be read any more leave what was read before in use, and are logged.

    Args:
        paths: The files.
        read: Reads them all; its errors are raised here, and only logged later.
        name: Their contents as a plural noun, for the log.
        clock: Returns seconds.
    Raises: Errors of `read`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[], _Contents],
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._read = read
        self._name = name
        self._clock = clock
        self._looked_s = clock()
        self._lock = threading.Lock()
        self.contents = read()
        # The first look reads again: the files may have changed since.
        self._stamps: list[tuple[int, int, int]] = []

    def current(self) -> _Contents:
        """Returns the contents; looks at the files at most once a second."""
        # Not `>=`: the clock may be set back.
        if not 0 <= self._clock() - self._looked_s < _LOOK_EVERY_S:
            self.changed()
        return self.contents

    def changed(self) -> _Contents | None:
        """Returns the new contents; None if no file has changed, or one cannot be read."""
        with self._lock:
            self._looked_s = self._clock()
            try:
                stamps = [_stamp(path) for path in self._paths]
                if stamps == self._stamps:
                    return None
                # A damaged file is read once, not at every look.
                self._stamps = stamps
                self.contents = self._read()
            except (OSError, ValueError, RecursionError, SettingsError) as error:
                _log.error(
                    "files cannot be read again; what was read before stays in use",
                    extra={"contents": self._name, "reason": str(error)},
                )
                return None
        _log.info("files were read again", extra={"contents": self._name})
        return self.contents


def _stamp(path: str) -> tuple[int, int, int]:
    """Returns what changes with a file, also if a link to it is replaced, as Kubernetes does."""
    try:
        found = os.stat(path)
    except OSError:
        # Reading it says why, once.
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
