"""Supervises a bundled Redis for a store, and reports in JSON lines."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from nearline.store.local import LocalFiles
from nearline_cli.local import bundled_redis
from nearline_cli.local.supervisor import Supervisor, end_on_sigterm
from nearline_cli.views.process_report import ProcessReport


async def main(store: str, port: str) -> None:
    """Runs until SIGTERM."""
    end_on_sigterm()
    report = ProcessReport(as_json=True, verbose=False)
    plan = bundled_redis.redis_spec(LocalFiles(Path(store)), int(port))
    supervisor = Supervisor([[plan]], report.change, report.line)
    stop = asyncio.Event()
    try:
        await supervisor.run(stop, lambda: report.ready(plan.address))
    except asyncio.CancelledError:
        stop.set()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
