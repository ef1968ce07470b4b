"""Processes beside those of Nearline that benches need."""

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
    """Runs a server of the folder `benchmarks` for the length of the block; gives its address.

    Raises: NotReady: there is no such folder, or the server ended at its start.
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
            raise NotReady("the minimal server ended at start; its last words are above")
        yield address
    finally:
        # The end of its input is its signal to stop, and comes even if this process is killed.
        process.stdin.close()
        await process.wait()


def single_process_pool() -> ProcessPoolExecutor:
    """Makes a process of its own: spawned, so that it inherits no threads and no memory."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
