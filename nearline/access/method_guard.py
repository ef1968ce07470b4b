"""Checks each call of one method: who calls, whether they may, and what the audit log says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from nearline.access.access_control import AccessControl
from nearline.access.api_keys import KeyExpired
from nearline.access.audit_log import REFUSED, AuditLog, subject_of
from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.rights import METHODS, MethodAccess, Right, Scope
from nearline.contract import DEFAULT_COLLECTION
from nearline.errors import NearlineError, NotReady, PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    # Clients, which ask here on whose behalf they call, load neither metrics nor settings.
    from nearline.access.limits import Limits
    from nearline.access.rate_limiter import RateLimiter, RunningCall

# The row of a method that has none: only services may call it.
_UNKNOWN = MethodAccess(Right.SERVICE, Scope.NONE, audited=True)
# With the second after which a file of keys is read again, within two.
_LOOK_EVERY_S = 0.5


@dataclass(slots=True)
class _Call:
    """A call that runs now.

    collection: That of its request, or of the last one in its stream. running: Counts the call
    against the limits of its caller; None without limits. limiter: Has the limits of all; None
    without limits. metadata: Its metadata. subject: What it is about, for the audit log. items:
    Item ids in its requests so far. expired: The caller whose key was refused.
    """

    caller: Caller | None
    collection: str = ""
    running: RunningCall | None = None
    limiter: RateLimiter | None = None
    metadata: Any = ()
    subject: str = ""
    items: int = 0
    expired: Caller | None = None


# Each call runs in a task of its own, so that it cannot see the caller of another.
_call: ContextVar[_Call | None] = ContextVar("nearline_call", default=None)


def current_caller() -> Caller:
    """Returns the caller of the call that runs now; servicers and shared queues ask."""
    call = _call.get()
    return ANONYMOUS if call is None or call.caller is None else call.caller


def delegated_caller() -> Caller | None:
    """Returns the caller on whose behalf this service calls another; None if it calls for itself.

    Tasks that a call starts inherit its caller.
    """
    call = _call.get()
    return None if call is None else call.caller


def current_limits() -> Sequence[tuple[str, Limits]]:
    """Returns the limits of the call that runs now, each with whose they are."""
    call = _call.get()
    return () if call is None or call.running is None else call.running.limits


def current_item_limit() -> tuple[str, int] | None:
    """Returns the most items of the tenant of the call that runs now; see `LimitTable`."""
    call = _call.get()
    if call is None or call.caller is None or call.limiter is None:
        return None
    return call.limiter.table.item_limit(call.caller)


@contextlib.contextmanager
def acting_for(caller: Caller) -> Iterator[None]:
    """Lets this service call others on behalf of a caller for the duration of the block."""
    before = _call.set(_Call(caller))
    try:
        yield
    finally:
        _call.reset(before)


class MethodGuard:
    """Checks the calls of one method.

    Args:
        service: Full name of the service.
        method: Name of the method.
        access: Identifies callers.
        audit: Records audited calls and refusals. Optional.
        limiter: Limits the calls of each tenant and key. Optional.
    """

    def __init__(
        self,
        service: str,
        method: str,
        access: AccessControl,
        audit: AuditLog | None = None,
        limiter: RateLimiter | None = None,
    ) -> None:
        row = METHODS.get(service, {}).get(method, _UNKNOWN)
        # Not what services ask of each other: where no credentials are required, nobody can tell
        # them from others.
        self._limiter = None if row.right is Right.SERVICE else limiter
        self._method = method
        self._access = access
        self._audit = audit
        self._row = row
        self._checks = access.required or audit is not None or self._limiter is not None
        self.records = audit is not None

    async def identify(self, context: Any) -> RunningCall | None:
        """Finds out who calls; `current_caller` returns it from now on in this call.

        Returns: What counts the call against the limits of its caller, and must be ended with it;
            None without limits.
        Raises: Unauthenticated: the credential is missing, unknown or has expired. NotReady: the
            keys of an identity provider cannot be read. Overloaded: the caller has too many calls.
        """
        if not self._checks:
            return None
        call = _Call(None)
        _call.set(call)
        call.metadata = context.invocation_metadata() or ()
        try:
            call.caller = await self._access.identify(call.metadata)
        except KeyExpired as error:
            call.expired = error.caller
            raise
        if self._limiter is not None:
            call.running = self._limiter.begin(call.caller)
            call.limiter = self._limiter
        return call.running

    @contextlib.asynccontextmanager
    async def valid_credential(self) -> AsyncIterator[None]:
        """Ends the block once the credential of the call is refused, such as a revoked key.

        Raises: Unauthenticated, PermissionDenied: it was refused meanwhile.
        """
        call, task = _call.get(), asyncio.current_task()
        if call is None or task is None or not self._access.required:
            yield
            return
        refused: list[NearlineError] = []

        async def watch() -> None:
            while not refused:
                await asyncio.sleep(_LOOK_EVERY_S)
                try:
                    await self._access.identify(call.metadata)
                except (Unauthenticated, PermissionDenied) as error:
                    refused.append(error)
                except NotReady:
                    continue  # The identity provider is away.
            task.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not refused:
                raise
            task.uncancel()
            raise refused[0] from None
        finally:
            watching.cancel()

    def check(self, request: Any) -> Any:
        """Returns the request, or the requests of a stream, checked for the rights of the caller.

        Raises: PermissionDenied: the caller may not make it; a stream raises it as it is read.
        """
        if not self._checks:
            return request
        if self._row.scope is Scope.ONE:
            self._require(request)
            return request
        call = _call.get()
        if isinstance(request, Message):
            self._note_subject(call, request)
        # Who has the right nowhere need not send a stream to learn it.
        current_caller().require(self._row.right, self._method)
        if not isinstance(request, Message):
            return self._checked(request)
        return request

    async def _checked(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        call = _call.get()
        async for message in messages:
            if call is not None:
                # A stream lasts: each of its requests counts, and its key may be revoked meanwhile.
                call.caller = await self._access.identify(call.metadata)
                if self._limiter is not None:
                    self._limiter.count(call.caller)
            if self._row.scope is Scope.BATCHES:
                self._require(message.request)
            yield message
            del message

    def _require(self, request: Any) -> None:
        collection = request.collection or DEFAULT_COLLECTION
        call = _call.get()
        if call is not None:
            call.collection = collection
        self._note_subject(call, request)
        current_caller().require(self._row.right, self._method, collection)

    def _note_subject(self, call: _Call | None, request: Message) -> None:
        if call is not None and self.records and self._row.audited:
            call.items += len(getattr(request, "ids", ()))
            call.subject = subject_of(request, call.items)

    def record(self, result: str, context: Any, request_id: str) -> None:
        """Writes the end of a call to the audit log, if it belongs there.

        Args:
            result: "OK", or the name of the gRPC status.
        """
        call = _call.get()
        if self._audit is None or call is None:
            return
        if self._row.audited or result in REFUSED:
            self._audit.write(
                call.caller or call.expired,
                self._method,
                collection=call.collection,
                subject=call.subject,
                result=result,
                request_id=request_id,
                peer=str(context.peer()),
            )
