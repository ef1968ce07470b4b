"""Supervises echo services on the given ports, and reports in JSON lines."""

from __future__ import annotations

import asyncio
import sys

from nearline_cli.local.supervisor import ProcessSpec, Supervisor, end_on_sigterm
from nearline_cli.views.process_report import ProcessReport


def plan(name: str, port: int, *more: str) -> ProcessSpec:
    """Plans an echo service."""
    return ProcessSpec(
        name=name,
        module="tests.nearline_cli.local.echo_service",
        arguments=("--port", str(port), *more),
        address=f"127.0.0.1:{port}",
        ready_services=("",),
    )


async def main(ports: list[int]) -> None:
    """Runs until SIGTERM."""
    end_on_sigterm()
    report = ProcessReport(as_json=True, verbose=False)
    stages = [[plan(f"echo-{number}", port)] for number, port in enumerate(ports)]
    supervisor = Supervisor(stages, report.change, report.line)
    stop = asyncio.Event()
    try:
        await supervisor.run(stop, lambda: report.ready(stages[-1][0].address))
    except asyncio.CancelledError:
        stop.set()


if __name__ == "__main__":
    asyncio.run(main([int(word) for word in sys.argv[1:]]))
