"""Progress of long commands on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nearline.durations import RemainingTime
from nearline_cli.terminal import output

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars, TaskID

    from index_builder.execution.progress import Progress

_NOTE_AFTER_S = 2.0


class _ProgressBars:
    """Shows a progress bar per stage with rate and remaining time; a `Progress`."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._done = self._before = 0
        self._left = RemainingTime()

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Adds a bar."""
        self._done, self._before = 0, done
        self._left = RemainingTime()
        self._task = self._bars.add_task(
            stage, total=total, completed=done, unit=unit, rate="", left=self._left
        )

    def advance(self, units: int) -> None:
        """Moves the bar."""
        assert self._task is not None
        self._done += units
        self._bars.update(self._task, advance=units)
        task = self._bars.tasks[self._task]
        if task.total is not None:
            self._left.update(self._done, task.total - self._before)
        if task.elapsed:
            self._bars.update(self._task, rate=f"{self._done / task.elapsed:,.0f}/s")

    def end(self, seconds: float) -> None:
        """Fills the bar and stops its clock."""
        assert self._task is not None
        done = self._before + self._done or 1
        self._bars.update(self._task, total=done, completed=done)
        self._bars.stop_task(self._task)


@contextlib.contextmanager
def waiting_note(name: str, *, quiet: bool = False) -> Iterator[None]:
    """Writes a line to standard error if the block takes longer than two seconds.

    Args:
        name: The service that the block waits for.
        quiet: Whether to write nothing.
    """
    if quiet:
        yield
        return
    loop = asyncio.get_running_loop()
    timer = loop.call_later(_NOTE_AFTER_S, output.print_note, f"waiting for {name} …")
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def open_progress(as_json: bool) -> Iterator[Progress]:
    """Yields progress bars on a terminal, log lines elsewhere, and nothing for JSON output."""
    from index_builder.execution.progress import NoProgress, TextProgress

    if as_json:
        yield NoProgress()
        return
    if not sys.stderr.isatty():
        yield TextProgress(output.print_note)
        return
    from rich import progress as rich

    from nearline_cli.terminal.remaining_column import RemainingColumn

    with rich.Progress(
        rich.TextColumn("{task.description:<8}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[unit]}"),
        rich.TextColumn("{task.fields[rate]}", style="progress.percentage"),
        rich.TimeElapsedColumn(),
        RemainingColumn(),
        console=output.console(error=True),
    ) as bars:
        yield _ProgressBars(bars)
