"""Files that are read again when they change."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from nearline.errors import SettingsError

_Contents = TypeVar("_Contents")
_log = logging.getLogger(__name__)


class WatchedFiles(Generic[_Contents]):
    """What was read from files; safe to share between threads.

    Files that cannot be read any more leave what was read before in use, and are logged.

    Args:
        paths: The files.
        read: Reads them all; its errors are raised here, and only logged later.
        name: Their contents as a plural noun, for the log.
    Raises: Errors of `read`.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[], _Contents], name: str) -> None:
        self._paths = paths
        self._read = read
        self._name = name
        self._lock = threading.Lock()
        self.contents = read()
        # The first look reads again: the files may have changed since.
        self._stamps: list[tuple[int, int, int]] = []

    def changed(self) -> _Contents | None:
        """Returns the new contents; None if no file has changed, or one cannot be read."""
        with self._lock:
            try:
                stamps = [_stamp(path) for path in self._paths]
                if stamps == self._stamps:
                    return None
                # A damaged file is read once, not at every look.
                self._stamps = stamps
                self.contents = self._read()
            except (OSError, ValueError, SettingsError) as error:
                _log.error(
                    "files cannot be read again; what was read before stays in use",
                    extra={"contents": self._name, "reason": str(error)},
                )
                return None
        _log.info("files were read again", extra={"contents": self._name})
        return self.contents


def _stamp(path: str) -> tuple[int, int, int]:
    """Returns what changes with a file, also if a link to it is replaced, as Kubernetes does."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino
