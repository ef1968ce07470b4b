"""Notices when something keeps the event loop of a server from answering."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Final, Self

from prometheus_client import Histogram

from nearline.wait_times import WAITS

_TICK_S: Final = 0.02
# Far above what a server holds its loop for by design, and far below a deadline of seconds.
_STALL_S: Final = 1.0
# Frames of the log line: enough to see who called what.
_FRAMES: Final = 12
_log = logging.getLogger(__name__)
_lag = Histogram(
    "nearline_server_loop_lag_seconds",
    "Time by which the event loop was late, fifty times a second; calls wait as long.",
    buckets=(0.001, 0.004, 0.016, 0.064, 0.256, 1, 4, 16),
)


class LoopWatchdog:
    """Measures how late the event loop is, and logs what holds it for a second or longer.

    Use it as an async context manager around the work of the loop.

    Args:
        stall_s: Seconds after which the loop counts as held.
    """

    def __init__(self, stall_s: float = _STALL_S) -> None:
        self._stall_s = stall_s
        self._ticked_s = time.monotonic()
        self._ended = threading.Event()
        self._loop_thread = 0
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop_thread = threading.get_ident()
        self._ticked_s = time.monotonic()
        self._ticking = asyncio.create_task(self._tick())
        threading.Thread(target=self._watch, name="loop-watchdog", daemon=True).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        assert self._ticking is not None
        self._ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticking

    async def _tick(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_TICK_S)
            self._ticked_s = time.monotonic()
            lag_s = max(0.0, self._ticked_s - began_s - _TICK_S)
            _lag.observe(lag_s)
            WAITS.note(self, lag_s)

    def _watch(self) -> None:
        """Logs each stall once, while it lasts; runs in a thread of its own."""
        logged_s = 0.0
        while not self._ended.wait(self._stall_s / 2):
            ticked_s = self._ticked_s
            held_s = time.monotonic() - ticked_s
            if held_s < self._stall_s or ticked_s == logged_s:
                continue
            logged_s = ticked_s
            _log.warning(
                "the event loop is held, and no call is answered meanwhile; the stack says by what",
                extra={"held_s": round(held_s, 3), "stack": self._stack()},
            )

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)[-_FRAMES:])
