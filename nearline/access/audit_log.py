"""The audit log: who did what, with which result; JSON lines, never bodies or secrets."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import Message

from nearline.access.caller import Caller
from nearline.counts import counted
from nearline.errors import MAX_SHOWN, PermissionDenied, SettingsError, Unauthenticated

# Results that are recorded whatever the method.
REFUSED = (Unauthenticated.status, PermissionDenied.status)
# Fields of requests that say what they are about: ids that are named, and ids of people.
_NAMED = {"job_id": "job", "snapshot_id": "snapshot", "canary_snapshot_id": "snapshot"}
_HASHED = {"user_id": "user", "session_id": "session"}
_HASH_DIGITS = 16
# Of each caller in a window; those of strangers together are of one.
_MOST_REFUSALS, _WINDOW_S = 100, 60.0
_log = logging.getLogger(__name__)


def subject_of(request: Message, items: int = 0) -> str:
    """Returns what a request is about: "3 items", "job night", "user sha256:9f86d081884c7d65".

    A user or a session is named by the first digits of the SHA-256 of its id.

    Args:
        items: Item ids of the call so far.
    """
    found = [counted(items, "item")] if items else []
    for name in request.DESCRIPTOR.fields_by_name:
        if not (value := getattr(request, name)):
            continue
        if name in _NAMED:
            found.append(f"{_NAMED[name]} {value[:MAX_SHOWN]}")
        elif name in _HASHED:
            digest = sha256(value.encode(errors="replace")).hexdigest()
            found.append(f"{_HASHED[name]} sha256:{digest[:_HASH_DIGITS]}")
        elif name == "letter_ids":
            found.append(counted(len(value), "dead letter"))
    return ", ".join(found)


class AuditLog:
    """Appends one line per audited call and per refusal.

    A line: {"time", "caller", "tenant", "method", "collection", "subject", "result", "request_id",
    "peer"}. Of the refusals of one caller in a minute, those beyond 100 are left out; the next line
    says how many, in "left_out". Each line is written with one call, so several processes may share
    the file. A file that was moved away, as logrotate does, is made anew. A line that cannot be
    written, for example because the disk is full, is an error in the log of the service; calls go
    on.

    Args:
        path: The file; made if it does not exist, readable by its owner only.
    Raises: SettingsError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._refusals: Counter[str] = Counter()
        self._window_end_s, self._left_out = 0.0, 0
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
        subject: str = "",
        result: str,
        request_id: str,
        peer: str,
    ) -> None:
        """Appends a line.

        Args:
            caller: None if the credential is unknown.
            subject: What the call was about; see `subject_of`.
            result: "OK", or the gRPC status.
        """
        if result in REFUSED and self._leaves_out(caller.name if caller else ""):
            return
        line: dict[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "caller": caller.name if caller else "",
            "tenant": caller.tenant if caller else "",
            "method": method[:MAX_SHOWN],
            "collection": collection[:MAX_SHOWN],
            "subject": subject,
            "result": result,
            "request_id": request_id,
            "peer": peer,
        }
        if self._left_out:
            line["left_out"], self._left_out = self._left_out, 0
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

    def _leaves_out(self, name: str) -> bool:
        """Returns whether a refusal is one too many for a caller; counts it."""
        if (now_s := time.monotonic()) >= self._window_end_s:
            self._refusals.clear()
            self._window_end_s = now_s + _WINDOW_S
        self._refusals[name] += 1
        left_out = self._refusals[name] > _MOST_REFUSALS
        self._left_out += left_out
        return left_out

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
