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
    """

    def __init__(self, poll: Callable[[], Awaitable[None]], every_s: float, failed: str) -> None:
        self._poll = poll
        self._every_s = every_s
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, with a wait."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends, whatever runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._poll()
            except Exception:
                # The next call may succeed.
                _log.exception(self._failed)
