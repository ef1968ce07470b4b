"""A service without model or snapshot, for tests of processes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import ClassVar

from pydantic import Field

from nearline import serving, settings, telemetry
from nearline.errors import StoreError


class EchoSettings(settings.ServerSettings):
    """Settings of the echo service."""

    section: ClassVar[str] = "shard"
    fail: str = Field("", description="How to fail: error, exit, crash or hang.")


async def main(argv: list[str]) -> None:
    """Serves health and nothing else."""
    # Before the settings: what is wrong with them must be told too.
    chosen = settings.load_from_process(EchoSettings, argv)
    telemetry.configure_logging(chosen.log_level, "echo")

    async def ready() -> None:
        if chosen.fail == "error":
            raise StoreError("store /nowhere: no such folder; build one")
        if chosen.fail == "exit":
            os._exit(7)
        if chosen.fail == "crash":
            raise ZeroDivisionError("this is a test")
        if chosen.fail == "hang":
            logging.info("waiting for ever")
            await asyncio.get_running_loop().create_future()

    await serving.serve(chosen, (), ready=ready)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "echo")
