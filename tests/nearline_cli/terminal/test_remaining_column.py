"""Tests of the column with the time that is left."""

from __future__ import annotations

import pytest
from rich.progress import Task, TaskID

from nearline.durations import RemainingTime
from nearline_cli.terminal.remaining_column import RemainingColumn


@pytest.mark.parametrize(
    ("total", "elapsed_s", "shown"),
    [(20, 41, "0:41 left"), (100, 1_000, "2:30:00 left"), (None, 41, ""), (20, 1, "")],
)
def test_the_time_that_is_left_is_shown_once_it_is_known(
    total: int | None, elapsed_s: int, shown: str
) -> None:
    now = [0.0]
    left = RemainingTime(lambda: now[0])
    task = Task(TaskID(1), "embed", total, 10, lambda: now[0], fields={"left": left})
    now[0] = elapsed_s
    left.update(10, total or 20)
    assert RemainingColumn().render(task).plain == shown
    task.finished_time = now[0]
    assert RemainingColumn().render(task).plain == ""
