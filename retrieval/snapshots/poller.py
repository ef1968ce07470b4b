"""A call that is repeated in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


class Poller:
    """Calls something every few seconds; a failure is logged, and what was known stays.

    Args:
        poll: The call.
        every_s: Seconds between two calls.
        failed: What the log says of an error that `poll` does not expect.
        at_once: Whether the first call is made without a wait.
    """

    def __init__(
        self,
        poll: Callable[[], Awaitable[None]],
        every_s: float,
        failed: str,
        *,
        at_once: bool = False,
    ) -> None:
        self._poll = poll
        self._every_s = every_s
        self._failed = failed
        self._wait_s = 0.0 if at_once else every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; requires a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends, whatever runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        await asyncio.sleep(self._wait_s)
        while True:
            try:
                await self._poll()
            except Exception:
                # The next call may succeed.
                _log.exception(self._failed)
            await asyncio.sleep(self._every_s)
