"""A process that keeps changing documents while others are searched."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.clients import RetrievalClient
from nearline.contract import Item
from nearline.errors import NotReady, Overloaded
from nearline_cli.evaluate.open_loop import run_open_loop


class ReadItems(Protocol):
    """Returns the documents of some rows; may be sent to another process."""

    def __call__(self, rows: NDArray[np.int64]) -> list[Item]:
        """Returns a document for each row."""
        ...


class Rewrites(NamedTuple):
    """Documents to change, and how fast.

    rows: Number of documents. read: Reads them. rate: Documents per second. batch: Documents per
    request.
    """

    collection: str
    rows: int
    read: ReadItems
    rate: float
    batch: int = 10


class Rewriter:
    """Writes random documents as they are, from a separate process, for the duration of the block.

    Exact results stay valid, since no document changes; the service cannot know that.

    Args:
        address: Address of the router.
        rewrites: What to write.
    Raises: NotReady: a write failed; at the end of the block.
    """

    def __init__(self, address: str, rewrites: Rewrites) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_write, args=(address, rewrites, self._stop, sender))
        self.written = 0

    def __enter__(self) -> Rewriter:
        self._process.start()
        self._receiver.recv()  # The process has started to write.
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        try:
            self.written = self._receiver.recv()
        except EOFError:
            raise NotReady("the process that writes failed; its error is above") from None
        finally:
            self._process.join()


def _write(address: str, rewrites: Rewrites, stop: Event, sender: Any) -> None:
    from nearline.thread_priority import use_batch_scheduling

    # In production, writers run on other machines; here they must not interrupt the services.
    use_batch_scheduling()
    sender.send(0)
    sender.send(asyncio.run(_write_at_rate(address, rewrites, stop)))


async def _write_at_rate(address: str, rewrites: Rewrites, stop: Event) -> int:
    """Writes until stopped; returns the number of documents."""
    written = 0
    rng = np.random.default_rng()

    async def send(number: int, due: float) -> None:
        nonlocal written
        items = rewrites.read(rng.choice(rewrites.rows, rewrites.batch, replace=False))
        # An overloaded server refuses writes; `written` tells.
        with contextlib.suppress(Overloaded):
            reply = await client.upsert_items(items, collection=rewrites.collection, timeout_s=10.0)
            written += len(reply.results)

    numbers = itertools.takewhile(lambda _: not stop.is_set(), itertools.count())
    async with RetrievalClient(address) as client:
        await run_open_loop(rewrites.rate / rewrites.batch, numbers, send)
    return written
