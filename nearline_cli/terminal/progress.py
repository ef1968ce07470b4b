"""Progress of long commands on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nearline_cli.terminal import output

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars, TaskID

    from index_builder.execution.progress import Progress


class _ProgressBars:
    """Shows a progress bar per stage with rate and remaining time; a `Progress`."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._done = 0

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Adds a bar."""
        self._done = 0
        self._task = self._bars.add_task(stage, total=total, unit=unit, rate="")

    def advance(self, units: int) -> None:
        """Moves the bar."""
        assert self._task is not None
        self._done += units
        self._bars.update(self._task, advance=units)
        task = self._bars.tasks[self._task]
        if task.elapsed:
            self._bars.update(self._task, rate=f"{self._done / task.elapsed:,.0f}/s")

    def end(self, seconds: float) -> None:
        """Fills the bar and stops its clock."""
        assert self._task is not None
        self._bars.update(self._task, total=self._done or 1, completed=self._done or 1)
        self._bars.stop_task(self._task)


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

    with rich.Progress(
        rich.TextColumn("{task.description:<8}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[unit]}"),
        rich.TextColumn("{task.fields[rate]}", style="progress.percentage"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=output.console(error=True),
    ) as bars:
        yield _ProgressBars(bars)
