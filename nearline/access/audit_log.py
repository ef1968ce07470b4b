"""The audit log: who did what, with which result; JSON lines, never bodies or secrets."""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from nearline.access.caller import Caller
from nearline.errors import SettingsError

_log = logging.getLogger(__name__)


class AuditLog:
    """Appends one line per audited call and per refusal.

    A line: {"time", "caller", "tenant", "method", "collection", "result", "request_id", "peer"}.
    Each is written with one call, so several processes may share the file. A file that was moved
    away, as logrotate does, is made anew. A line that cannot be written, for example because the
    disk is full, is an error in the log of the service; calls go on.

    Args:
        path: The file; made if it does not exist, readable by its owner only.
    Raises: SettingsError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._file = self._open()
        except OSError as error:
            raise SettingsError(
                f"the audit log {path} cannot be opened: {error.strerror}; choose another "
                "--audit-log"
            ) from error

    def write(
        self,
        caller: Caller | None,
        method: str,
        *,
        collection: str,
        result: str,
        request_id: str,
        peer: str,
    ) -> None:
        """Appends a line.

        Args:
            caller: None if the credential was refused.
            result: "OK", or the gRPC status.
        """
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "caller": caller.name if caller else "",
            "tenant": caller.tenant if caller else "",
            "method": method,
            "collection": collection[:200],
            "result": result,
            "request_id": request_id,
            "peer": peer,
        }
        data = json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n"
        with self._lock:
            try:
                if self._was_moved():
                    os.close(self._file)
                    self._file = self._open()
                os.write(self._file, data)
            except OSError as error:
                _log.error(
                    "the audit log cannot be written",
                    extra={"file": str(self._path), "reason": error.strerror, "line": line},
                )

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _was_moved(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._file).st_ino
        except FileNotFoundError:
            return True
