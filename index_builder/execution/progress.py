"""Progress of a build: stages, their duration and their reports."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from nearline.durations import RemainingTime

_T = TypeVar("_T")
_REPORT_INTERVAL_S = 5.0


class Progress(Protocol):
    """Receives the progress of stages; called from any thread, one at a time."""

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begins a stage.

        total: Number of units of work; None if unknown. done: Those that an earlier run finished.
        """
        ...

    def advance(self, units: int) -> None:
        """Adds units of finished work."""
        ...

    def end(self, seconds: float) -> None:
        """Ends a stage that is finished; not called if it fails."""
        ...


class NoProgress:
    """Ignores progress."""

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Does nothing."""

    def advance(self, units: int) -> None:
        """Does nothing."""

    def end(self, seconds: float) -> None:
        """Does nothing."""


class TextProgress:
    """Reports progress as lines of text: every five seconds, and at the end of a stage.

    Args:
        write: Receives a line without a line break.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._done = self._before = 0
        self._started = self._reported = 0.0
        self._left = RemainingTime()

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begins a stage."""
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._before = 0, done
        self._started = self._reported = time.monotonic()
        self._left = RemainingTime(time.monotonic)

    def advance(self, units: int) -> None:
        """Writes a line if the last one is five seconds old."""
        self._done += units
        if self._total is not None:
            self._left.update(self._done, self._total - self._before)
        now = time.monotonic()
        if now - self._reported < _REPORT_INTERVAL_S:
            return
        self._reported = now
        self._write(self.line())

    def line(self) -> str:
        """Returns how far the stage is now, and the seconds left; empty before the first one."""
        rate = self._done / max(time.monotonic() - self._started, 1e-6)
        # A rate below one per second is not informative, nor is one of percent.
        shown = f", {rate:,.0f}/s" if rate >= 1 and self._unit != "%" else ""
        if self._total is None:
            done = f"{self._done:,} {self._unit}{shown}" if self._done else ""
            return ": ".join(part for part in (self._stage, done) if part)
        done = f"{self._before + self._done:,} of {self._total:,} {self._unit}"
        left_s = self._left.seconds()
        left = "" if left_s is None else f", {left_s:,.0f} s left"
        return f"{self._stage}: {done}{shown}{left}"

    def end(self, seconds: float) -> None:
        """Writes the duration of the stage."""
        done = f"{self._done:,} {self._unit}" if self._done else "done"
        self._write(f"{self._stage}: {done} in {seconds:.1f} s")


class StageClock:
    """Times stages, optionally reports them, and runs their work in threads."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or NoProgress()
        self._stopped = threading.Event()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int | None = None, unit: str = "", done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """Runs a stage; yields a function that adds finished units. See `Progress.start`."""
        started = time.monotonic()
        self._progress.start(name, total, unit, done)
        yield self._advance
        self.seconds[name] = time.monotonic() - started
        self._progress.end(self.seconds[name])

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Runs work in a thread; a cancellation ends it when it next reports progress."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The files of the thread are closed and removed next, so it has to end first.
            self._stopped.set()
            await asyncio.wait((task,))
            # Retrieving the exception marks it as seen; otherwise asyncio logs it.
            task.exception()
            raise

    def check_cancelled(self) -> None:
        """Ends the work of a thread by an error if it was cancelled."""
        if self._stopped.is_set():
            raise _StageCancelled

    def _advance(self, units: int) -> None:
        self.check_cancelled()
        self._progress.advance(units)


class _StageCancelled(Exception):
    """Ends the work of a cancelled thread."""
