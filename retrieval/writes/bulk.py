"""Many batches of changes, one after another: counted, and told how far it came where one fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeAlias

from nearline.contract import BulkWriteReply, WriteOutcome, WriteReply, WriteResult
from nearline.errors import NearlineError
from nearline.retry import retry_while_overloaded
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks

# Writes one batch, anew each time that it is called.
WriteBatch: TypeAlias = Callable[[], Awaitable[WriteReply]]
_MAX_REJECTIONS = 1_000


async def write_batches(batches: AsyncIterable[WriteBatch]) -> BulkWriteReply:
    """Writes batches in order; while one is written the next is read, and no more than that.

    A batch that finds the embedder overloaded waits for as long as that says.

    Raises: what a batch raises, or the reading of one; it names the number of the batch. All
        batches before it are durable then.
    """
    tally = _Tally()
    reader = aiter(batches)
    running: asyncio.Task[WriteReply] | None = None
    try:
        while True:
            batch, read_error = None, None
            try:
                batch = await anext(reader, None)
            except NearlineError as error:
                read_error = error
            if running is not None:
                tally.add(await tally.result_of(running))
            if read_error is not None:
                raise tally.with_batch_number(read_error) from read_error
            if batch is None:
                return tally.reply()
            running = asyncio.ensure_future(retry_while_overloaded(batch))
    finally:
        if running is not None:
            running.cancel()


class _Tally:
    """What became of the batches so far."""

    def __init__(self) -> None:
        self._batches = 0
        self._counts: Counter[WriteOutcome] = Counter()
        self._rejections: list[WriteResult] = []
        self._watermark: Watermark | None = None

    async def result_of(self, running: Awaitable[WriteReply]) -> WriteReply:
        """Waits for a batch; an error then says where it happened."""
        try:
            return await running
        except NearlineError as error:
            raise self.with_batch_number(error) from error

    def add(self, reply: WriteReply) -> None:
        """Takes in what became of a batch."""
        self._batches += 1
        self._counts.update(one.outcome for one in reply.results)
        rejected = [one for one in reply.results if one.outcome is WriteOutcome.REJECTED]
        self._rejections += rejected[: _MAX_REJECTIONS - len(self._rejections)]
        mark = decode_watermark(reply.watermark)
        if mark is not None:
            # The newest first: it counts where a new log has taken the place of the one before.
            self._watermark = (
                mark if self._watermark is None else merge_watermarks((mark, self._watermark))
            )

    def with_batch_number(self, error: NearlineError) -> NearlineError:
        """Returns the error of the batch after those taken in."""
        items = self._counts.total() - self._counts[WriteOutcome.REJECTED]
        return type(error)(
            f"batch {self._batches + 1}: {error.message}; the {self._batches} batches before it "
            f"({items} items) are durable",
            field=error.field,
            retry_after_s=error.retry_after_s,
        )

    def reply(self) -> BulkWriteReply:
        """Returns what became of all."""
        return BulkWriteReply(
            watermark=b"" if self._watermark is None else self._watermark.encode(),
            counts=dict(self._counts),
            rejections=self._rejections,
        )
