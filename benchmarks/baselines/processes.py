"""Baseline servers and helper processes of benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nearline
from nearline.errors import NotReady


@contextlib.asynccontextmanager
async def minimal_server(module: str, *arguments: str) -> AsyncIterator[str]:
    """Runs a server of the folder `benchmarks` for the duration of the block; yields its address.

    Raises:
        NotReady: The folder does not exist, or the server ended at start.
    """
    root = Path(nearline.__file__).resolve().parents[1]
    if not (root / f"{module.replace('.', '/')}.py").is_file():
        raise NotReady(
            f"the minimal server is not at {root / 'benchmarks'}; run the benchmark from a clone"
        )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise NotReady("the minimal server ended at start; its output is above")
        yield address
    finally:
        # Closing its input stops it, even if this process is killed.
        process.stdin.close()
        await process.wait()


def single_process_pool() -> ProcessPoolExecutor:
    """Returns a pool of one process, spawned so that it inherits no threads and no memory."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
