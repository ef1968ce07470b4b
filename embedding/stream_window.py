"""How far a bulk stream reads ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from nearline import contract as c


class StreamWindow:
    """The batches in progress of one stream, in order: limited by their texts, but at least two."""

    def __init__(self, max_texts: int) -> None:
        self._max_texts = max_texts
        self._texts = 0
        self._batches = 0
        self._left = asyncio.Event()
        self._work: asyncio.Queue[tuple[asyncio.Task[c.Embeddings], int] | None] = asyncio.Queue()

    async def enter(self, texts: int, work: Coroutine[None, None, c.Embeddings]) -> None:
        """Starts a batch once there is room."""
        try:
            while self._batches >= 2 and self._texts + texts > self._max_texts:
                self._left.clear()
                await self._left.wait()
        except asyncio.CancelledError:
            work.close()
            raise
        self._texts += texts
        self._batches += 1
        self._work.put_nowait((asyncio.create_task(work), texts))

    def leave(self, texts: int) -> None:
        """Records that a batch was answered."""
        self._texts -= texts
        self._batches -= 1
        self._left.set()

    async def next(self) -> tuple[asyncio.Task[c.Embeddings], int] | None:
        """Returns the next batch in order; None after the last."""
        return await self._work.get()

    def end(self) -> None:
        """Records that no more batches come."""
        self._work.put_nowait(None)

    async def cancel(self) -> None:
        """Cancels the batches in progress."""
        tasks = []
        while not self._work.empty():
            work = self._work.get_nowait()
            if work is not None:
                work[0].cancel()
                tasks.append(work[0])
        await asyncio.gather(*tasks, return_exceptions=True)
