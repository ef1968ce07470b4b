"""The report of `nearline up` never stops its supervisor, whoever reads it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nearline_cli.local.supervisor import ProcessState, StateChange
from nearline_cli.views.process_report import ProcessReport

# More than a pipe holds.
MANY = 2_000
CHANGE = StateChange(name="router-0", address="127.0.0.1:7700", state=ProcessState.SERVING, pid=7)


async def report_changes(report: ProcessReport, count: int) -> None:
    for _ in range(count):
        report.change(CHANGE)
    report.ready("127.0.0.1:7700")


def main() -> None:
    report = ProcessReport(as_json=True, verbose=False)
    report.run_until_interrupted(report_changes(report, MANY))


def test_a_pipe_that_nobody_reads_stops_neither_the_work_nor_its_end() -> None:
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_report_that_is_read_is_complete_and_in_order(
    capfd: pytest.CaptureFixture[str],
) -> None:
    report = ProcessReport(as_json=True, verbose=False)
    report.run_until_interrupted(report_changes(report, 3))
    events = [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]
    assert events == ["state"] * 3 + ["process", "ready"]


if __name__ == "__main__":
    main()
