"""A column of a progress bar: the time that is left, which never rises."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

from nearline.durations import RemainingTime


class RemainingColumn(ProgressColumn):
    """Shows the time that is left by the `RemainingTime` in field `left` of a task."""

    def render(self, task: Task) -> Text:
        """Returns the time as 0:41 left; nothing if it is unknown, or the task has ended."""
        left: RemainingTime = task.fields["left"]
        seconds = None if task.finished or task.total is None else left.seconds()
        if seconds is None:
            return Text("")
        minutes, second = divmod(round(seconds), 60)
        hours, minute = divmod(minutes, 60)
        time = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
        return Text(f"{time} left", style="progress.remaining")
