"""Every error that Nearline raises, and its one gRPC status.

NearlineError
├── InvalidRequest          INVALID_ARGUMENT     the request can never succeed; says which field
├── Unauthenticated         UNAUTHENTICATED      no token, or one that nobody has
├── NotFound                NOT_FOUND            no such item, collection or snapshot
├── AlreadyExists           ALREADY_EXISTS       something of that name is there
├── Overloaded              RESOURCE_EXHAUSTED   the queue is full; says when to come back
├── NotReady                UNAVAILABLE          loading, draining, or a peer is away; try again
│   ├── ShardsUnavailable   UNAVAILABLE          full coverage was asked for and cannot be had
│   └── NotApplied          UNAVAILABLE          live changes are not as far as was asked for
├── SnapshotMismatch        FAILED_PRECONDITION  another model, dimension or faiss version
├── GateFailed              FAILED_PRECONDITION  a snapshot that the release gate refuses
├── SnapshotGone            FAILED_PRECONDITION  no longer loaded; retry the whole request
├── Conflict                ABORTED              somebody else was faster; read again and retry
├── SnapshotCorrupt         DATA_LOSS            a file is not what the manifest says
├── Unsupported             UNIMPLEMENTED        this deployment cannot do that
├── DeadlineExceeded        DEADLINE_EXCEEDED    the caller's time is up
└── InternalError           INTERNAL             our bug; carries an error id, never the cause
SettingsError and StoreError belong to the operator's own machine and do not cross the wire.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

__all__ = [
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "GateFailed",
    "InternalError",
    "InvalidRequest",
    "NearlineError",
    "NotApplied",
    "NotFound",
    "NotReady",
    "Overloaded",
    "SettingsError",
    "ShardsUnavailable",
    "SnapshotCorrupt",
    "SnapshotGone",
    "SnapshotMismatch",
    "StoreError",
    "Unauthenticated",
    "Unsupported",
]

_E = TypeVar("_E", bound=BaseException)


class NearlineError(Exception):
    """Base of all; the text says what is wrong, the value found, the value needed, the remedy.

    Args:
        message: The text.
        field: Path of the request field at fault, for example "options.k"; empty where none is.
        retry_after_s: Seconds after which a retry may succeed; None where waiting does not help.
    """

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self, message: str, *, field: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequest(NearlineError):
    """The request can never succeed as it is."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"


class Unauthenticated(NearlineError):
    """The call carries no token, or one that is not known."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class NotFound(NearlineError):
    """No such item, collection or snapshot."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(NearlineError):
    """Something of that name is there already."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class Overloaded(NearlineError):
    """The work cannot be done in time; `retry_after_s` says when it could."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class NotReady(NearlineError):
    """The service is loading or draining, or a peer it needs is away."""

    status = "UNAVAILABLE"
    reason = "NOT_READY"


class ShardsUnavailable(NotReady):
    """Full coverage was asked for, and a shard did not answer."""

    reason = "SHARDS_UNAVAILABLE"


class NotApplied(NotReady):
    """A state as new as min_watermark was asked for, and is not reached yet."""

    reason = "NOT_APPLIED"


class SnapshotMismatch(NearlineError):
    """Index and request (or index and software) do not belong together."""

    status = "FAILED_PRECONDITION"
    reason = "SNAPSHOT_MISMATCH"


class GateFailed(NearlineError):
    """The release gate refuses a snapshot; the text says which checks failed, and what to do."""

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
    """A file of the snapshot is not what its manifest says."""

    status = "DATA_LOSS"
    reason = "SNAPSHOT_CORRUPT"


class Unsupported(NearlineError):
    """This deployment, or this version, cannot do what was asked."""

    status = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class DeadlineExceeded(NearlineError):
    """The caller's deadline passed."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class InternalError(NearlineError):
    """Our bug; the server's log has the cause under the error id in the text."""


class SettingsError(NearlineError):
    """A setting is unknown or has a bad value."""

    reason = "SETTINGS"


class StoreError(NearlineError):
    """The snapshot store cannot be read or written: no such folder, no space, no permission."""

    reason = "STORE"


def first_of(group: BaseExceptionGroup[_E]) -> _E:
    """Returns the first error of a task group: callers know our classes, not groups of them."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error
