"""Lines are written in another thread, in order; what nobody reads is counted and dropped."""

from __future__ import annotations

import threading

import pytest

from nearline_cli.terminal.background_writer import BackgroundWriter


def test_lines_that_do_not_fit_are_dropped_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    begun, read = threading.Event(), threading.Event()
    written: list[int] = []
    writer = BackgroundWriter(most=3)

    def stuck() -> None:
        begun.set()
        read.wait()

    writer.put(stuck)
    begun.wait()
    for number in range(5):
        writer.put(lambda number=number: written.append(number))  # type: ignore[misc]
    assert not writer.flush(0)
    read.set()
    assert writer.flush(10)
    assert written == [0, 1, 2]
    writer.put(lambda: written.append(5))
    assert writer.flush(10)
    assert written == [0, 1, 2, 5]
    assert "2 lines of the report were dropped" in capsys.readouterr().err


def test_errors_of_a_disk_are_dropped_and_a_closed_pipe_is_told() -> None:
    broken: list[BrokenPipeError] = []
    writer = BackgroundWriter(broken.append)
    written: list[str] = []

    def fail(error: OSError) -> None:
        raise error

    for error in (OSError(28, "No space left"), BrokenPipeError(32, "Broken pipe")):
        writer.put(lambda error=error: fail(error))  # type: ignore[misc]
    writer.put(lambda: written.append("on"))
    assert writer.flush(10)
    assert [one.errno for one in broken] == [32] and written == ["on"]
