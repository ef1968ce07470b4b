"""Every error that Nearline raises, each with one gRPC status.

NearlineError
├── InvalidRequest          INVALID_ARGUMENT     the request can never succeed; says which field
├── Unauthenticated         UNAUTHENTICATED      no token, or an unknown one
├── PermissionDenied        PERMISSION_DENIED    the caller is known and may not do this
├── NotFound                NOT_FOUND            no such item, collection or snapshot
├── AlreadyExists           ALREADY_EXISTS       the name is already taken
├── Overloaded              RESOURCE_EXHAUSTED   the queue is full; says when to retry
│   └── FeedBlocked         RESOURCE_EXHAUSTED   Redis, a disk or memory is nearly full; free some
├── NotReady                UNAVAILABLE          loading, draining, or a peer is down; retry
│   ├── ShardsUnavailable   UNAVAILABLE          full coverage was required and is not available
│   └── NotApplied          UNAVAILABLE          live changes have not reached min_watermark
├── SnapshotMismatch        FAILED_PRECONDITION  another model, dimension or FAISS version
├── GateFailed              FAILED_PRECONDITION  the release gate rejected the snapshot
├── SnapshotGone            FAILED_PRECONDITION  no longer loaded; retry the whole request
├── Conflict                ABORTED              a concurrent change won; read again and retry
├── SnapshotCorrupt         DATA_LOSS            a file differs from its manifest
├── Unsupported             UNIMPLEMENTED        not supported by this deployment
├── DeadlineExceeded        DEADLINE_EXCEEDED    the caller's deadline passed
└── InternalError           INTERNAL             a bug; carries an error id, never the cause
SettingsError and StoreError are local to the operator's machine and never cross the wire.
"""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import ClassVar, Self, TypeVar

__all__ = [
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "FeedBlocked",
    "GateFailed",
    "InternalError",
    "InvalidRequest",
    "NearlineError",
    "NotApplied",
    "NotFound",
    "NotReady",
    "Overloaded",
    "PermissionDenied",
    "SettingsError",
    "ShardsUnavailable",
    "SnapshotCorrupt",
    "SnapshotGone",
    "SnapshotMismatch",
    "StoreError",
    "Unauthenticated",
    "Unsupported",
]

# Characters of a value that a message shows.
MAX_SHOWN = 200
# Of a longer message, which can only come from a large value, the middle is dropped unread.
_MAX_READ = 65_536
_DROPPED = "\0…\0"

_E = TypeVar("_E", bound=BaseException)
# A quoted value (quotes within words are apostrophes), or a long run without spaces.
_VALUES = re.compile(
    rf"""(?<!\w)'(?:[^'\\]|\\.)*+' | (?<!\w)"(?:[^"\\]|\\.)*+" | [^\s'"]{{{MAX_SHOWN + 1},}}""",
    re.VERBOSE | re.DOTALL,
)


class NearlineError(Exception):
    """Base class; the message states the problem, the value found, the value needed and the remedy.

    Args:
        message: The message. Of values longer than 200 characters, which a caller may have sent,
            only the beginning is kept.
        field: Path of the request field at fault, for example "options.k"; empty if no field is.
        retry_after_s: Seconds after which a retry may succeed; None if waiting does not help.
        peer_died: Whether a server was lost while it worked on the call. The call may be the cause,
            so clients do not repeat it.
    """

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        retry_after_s: float | None = None,
        peer_died: bool = False,
    ) -> None:
        message = _with_short_values(message)
        super().__init__(message)
        self.message = message
        self.field = field[:MAX_SHOWN]
        self.retry_after_s = retry_after_s
        self.peer_died = peer_died

    def with_message(self, message: str) -> Self:
        """Returns the same error with another message."""
        other = copy.copy(self)
        other.message = _with_short_values(message)
        other.args = (other.message,)
        return other


class InvalidRequest(NearlineError):
    """The request can never succeed unchanged."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"


class Unauthenticated(NearlineError):
    """The call carries no token, or an unknown one."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionDenied(NearlineError):
    """The caller is known, and its credential does not allow this."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class NotFound(NearlineError):
    """No such item, collection or snapshot."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(NearlineError):
    """The name is already taken."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class Overloaded(NearlineError):
    """The work cannot be done in time; `retry_after_s` says when to retry."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class FeedBlocked(Overloaded):
    """Redis, a disk or memory is nearly full, so nothing may be added until some is freed."""

    reason = "FEED_BLOCKED"


class NotReady(NearlineError):
    """The service is loading or draining, or a peer that it needs is down."""

    status = "UNAVAILABLE"
    reason = "NOT_READY"


class ShardsUnavailable(NotReady):
    """Full coverage was required, and a shard did not answer."""

    reason = "SHARDS_UNAVAILABLE"


class NotApplied(NotReady):
    """Live changes have not reached the requested min_watermark yet."""

    reason = "NOT_APPLIED"


class SnapshotMismatch(NearlineError):
    """The index does not fit the request or the installed software."""

    status = "FAILED_PRECONDITION"
    reason = "SNAPSHOT_MISMATCH"


class GateFailed(NearlineError):
    """The release gate rejected a snapshot; the message names the failed checks and the remedy."""

    status = "FAILED_PRECONDITION"
    reason = "GATE_FAILED"


class SnapshotGone(NearlineError):
    """The named snapshot is no longer loaded; retry the whole request on the current one."""

    status = "FAILED_PRECONDITION"
    reason = "SNAPSHOT_GONE"


class Conflict(NearlineError):
    """A concurrent change came first."""

    status = "ABORTED"
    reason = "CONFLICT"


class SnapshotCorrupt(NearlineError):
    """A file of the snapshot differs from its manifest."""

    status = "DATA_LOSS"
    reason = "SNAPSHOT_CORRUPT"


class Unsupported(NearlineError):
    """This deployment or this version does not support the request."""

    status = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class DeadlineExceeded(NearlineError):
    """The caller's deadline passed."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class InternalError(NearlineError):
    """A bug in Nearline; the server's log has the cause under the error id of the message."""


class SettingsError(NearlineError):
    """A setting is unknown or has an invalid value."""

    reason = "SETTINGS"


class StoreError(NearlineError):
    """The snapshot store cannot be read or written: no such folder, no space, no permission."""

    reason = "STORE"


def _with_short_values(message: str) -> str:
    if len(message) <= MAX_SHOWN:
        return message
    if len(message) <= _MAX_READ:
        return _VALUES.sub(_shorten, message)
    kept = _MAX_READ // 2
    dropped = len(message) - 2 * kept - len(_DROPPED)
    shown = f"{message[:kept]}{_DROPPED}{message[-kept:]}"
    return _VALUES.sub(partial(_shorten, dropped=dropped), shown).replace(_DROPPED, " … ")


def _shorten(match: re.Match[str], dropped: int = 0) -> str:
    """Returns a value, shortened. dropped: Characters that are missing if its middle is."""
    value = match.group()
    if len(value) <= MAX_SHOWN:
        return value
    quote = value[0] if value[0] in "'\"" else ""
    characters = len(value) + (dropped if _DROPPED in value else 0)
    return f"{value[: MAX_SHOWN - 2]}…{quote} ({characters:,} characters)"


def first_of(group: BaseExceptionGroup[_E]) -> _E:
    """Returns the first error of a task group, since callers expect single errors."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error
