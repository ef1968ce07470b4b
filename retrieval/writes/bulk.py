"""Writes many batches of changes in order; an error reports how many are durable."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeAlias

from nearline.contract import BulkWriteReply, WriteOutcome, WriteReply, WriteResult
from nearline.counts import counted
from nearline.errors import NearlineError
from nearline.retry import retry_while_overloaded
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks

# Writes one batch; each call is a new attempt.
WriteBatch: TypeAlias = Callable[[], Awaitable[WriteReply]]
_MAX_REJECTIONS = 1_000


async def write_batches(batches: AsyncIterable[WriteBatch]) -> BulkWriteReply:
    """Writes batches in order, each before it reads the next one.

    If the embedder is overloaded, a batch is retried after the time that the embedder names.

    Raises: Any error of reading or writing a batch, with the number of the batch. All batches
        before it are durable.
    """
    tally = _Tally()
    try:
        async for batch in batches:
            tally.add(await retry_while_overloaded(batch))
            del batch  # Or it stays in memory while the next one is read.
    except NearlineError as error:
        raise tally.with_batch_number(error) from error
    return tally.reply()


class _Tally:
    """Outcomes of the batches so far."""

    def __init__(self) -> None:
        self._batches = 0
        self._counts: Counter[WriteOutcome] = Counter()
        self._rejections: list[WriteResult] = []
        self._watermark: Watermark | None = None

    def add(self, reply: WriteReply) -> None:
        """Adds the outcome of a batch."""
        self._batches += 1
        self._counts.update(one.outcome for one in reply.results)
        rejected = [one for one in reply.results if one.outcome is WriteOutcome.REJECTED]
        self._rejections += rejected[: _MAX_REJECTIONS - len(self._rejections)]
        mark = decode_watermark(reply.watermark)
        if mark is not None:
            # The newest watermark comes first: it wins if a new log has replaced the previous one.
            self._watermark = (
                mark if self._watermark is None else merge_watermarks((mark, self._watermark))
            )

    def with_batch_number(self, error: NearlineError) -> NearlineError:
        """Returns an error of the next batch, with its number."""
        text = f"batch {self._batches + 1}: {error.message}"
        if self._batches:
            items = self._counts.total() - self._counts[WriteOutcome.REJECTED]
            text += f"; durable before it: {counted(items, 'item')}"
        return error.with_message(text)

    def reply(self) -> BulkWriteReply:
        """Returns the outcome of all batches."""
        return BulkWriteReply(
            watermark=b"" if self._watermark is None else self._watermark.encode(),
            counts=dict(self._counts),
            rejections=self._rejections,
        )
