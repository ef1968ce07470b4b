"""One embedding service: its model, its health, and the work that it was sent."""

from __future__ import annotations

import asyncio
import time
from asyncio import Task
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nearline.contract import Embedder, EmbedderInfo
from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    NearlineError,
    NotReady,
    Overloaded,
    SnapshotMismatch,
)
from retrieval.balancing.health import ReplicaHealth
from retrieval.protocols import metrics

_R = TypeVar("_R")
# Errors of a service, not of its callers: they name it.
_OWN_FAULTS = (NotReady, Overloaded, InternalError)
# A service that computes answers `GetInfo` at once, so one that takes this long hangs.
CHECK_TIMEOUT_S = 2.0
_CHECK_EVERY_S = 0.5
# A call that takes longer may have gone to a service that hangs.
_PATIENCE_S = 0.5


class EmbeddingEndpoint:
    """The embedding service at one address.

    It is checked (`GetInfo`) before its first call, while a call takes long, and again while it is
    away or has another model: at most twice a second, and only if somebody wants to call it. So no
    task outlives its callers by more than a check.

    Args:
        address: Address, for errors and metrics.
        client: The service; closed by its owner.

    info: Its card; None before its first answer, and once it turned out to have another model.
    work: Characters of the texts in flight. calls: Calls in flight. silent: Whether it last let a
    check run out of time.
    """

    def __init__(self, address: str, client: Embedder) -> None:
        self.address = address
        self.health = ReplicaHealth()
        self.health.reason = f"{address} has not answered yet"
        self.info: EmbedderInfo | None = None
        self.work = self.calls = 0
        self.silent = False
        self._client = client
        self._check_after = 0.0
        self._checking: Task[None] | None = None
        self._is_ready = metrics.embedder_ready.labels(address)
        self._is_ready.set(0)

    @property
    def checked(self) -> bool:
        """Whether a check is running."""
        return self._checking is not None and not self._checking.done()

    def check(self, *, unless_recent: bool = True) -> Task[None] | None:
        """Returns the running check, or starts one.

        unless_recent: Whether to return None instead if the last check ended less than half a
            second ago.
        """
        if not self.checked:
            if unless_recent and time.monotonic() < self._check_after:
                return None
            self._checking = asyncio.ensure_future(self._check())
        return self._checking

    async def call(self, work: int, send: Callable[[Embedder], Awaitable[_R]]) -> _R:
        """Makes a call and records its outcome; gives up if the service hangs.

        Raises: NotReady: the service does not answer. Any error of the call.
        """
        self.work += work
        self.calls += 1
        task = asyncio.ensure_future(send(self._client))
        try:
            await self._wait_for(task)
            answer = task.result()
        except NearlineError as error:
            self._record_failure(error)
            if isinstance(error, _OWN_FAULTS) and self.address not in error.message:
                raise error.with_message(f"{self.address}: {error.message}") from error
            raise
        finally:
            task.cancel()
            self.work -= work
            self.calls -= 1
        self.health.record_success()
        return answer

    async def _wait_for(self, task: asyncio.Future[_R]) -> None:
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        while not task.done():
            check = self.check()
            waited: set[asyncio.Future[Any]] = {task} if check is None else {task, check}
            await asyncio.wait(waited, timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            if self.silent and not task.done():
                raise NotReady(self.health.reason)

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                info = await self._client.info()
        except (TimeoutError, DeadlineExceeded):
            self.silent = True
            self._record_lost(f"{self.address} has not answered for {CHECK_TIMEOUT_S:g} s")
        except NearlineError as error:
            self.silent = False
            # A service that refuses is there.
            if self.info is None or type(error) is not Overloaded:
                self._record_lost(f"{self.address} says: {error.message}")
        else:
            self.info = info
            self.silent = False
            self.health.record_status()
            self._is_ready.set(1)
        finally:
            self._check_after = time.monotonic() + _CHECK_EVERY_S

    def _record_failure(self, error: NearlineError) -> None:
        if isinstance(error, SnapshotMismatch):
            self.info = None
        elif isinstance(error, NotReady):
            self._record_lost(error.message)
        elif isinstance(error, InternalError):
            self.health.record_failure(time.monotonic(), error.message)

    def _record_lost(self, reason: str) -> None:
        self.health.record_lost(reason)
        self._is_ready.set(0)
