"""Embedding of document chunks; a rejected text does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Embedder, EmbedderInfo, Embeddings, Lane, TextRole
from nearline.errors import InvalidRequest, first_of
from nearline.retry import retry_while_overloaded

_BATCH_TEXTS = 256
_IN_FLIGHT = 4
# Time limit of one batch if the whole call has no limit.
_BATCH_TIMEOUT_S = 120.0
# Assumed length of a token in the queue of the embedding service.
_CHARACTERS_PER_TOKEN = 4


class DocumentEmbeddings(NamedTuple):
    """Vectors of texts, and the errors of rejected texts.

    vectors: (n, d) float32, in the order of the texts; zeros for rejected texts.
    refused: The errors by position of the text.
    """

    vectors: NDArray[np.float32]
    refused: Mapping[int, InvalidRequest]


async def embed_documents(
    embedder: Embedder,
    info: EmbedderInfo,
    texts: Sequence[str],
    lane: Lane,
    timeout_s: float | None,
    *,
    services: int = 1,
) -> DocumentEmbeddings:
    """Embeds texts as documents, several batches at a time.

    On the bulk lane, waits for an overloaded embedder as long as it requests and time permits.

    Args:
        embedder: The embedder.
        info: Its properties: limits, and the fingerprint that every batch must have. The model
            reads at most a few hundred tokens, so texts are cut at its character limit.
        texts: n texts.
        lane: The queue of the embedder to use.
        timeout_s: Seconds left; None means no limit.
        services: Number of services that share the batches; each gets as many as one alone.
    Raises: SnapshotMismatch: the embedder has another model now. NotReady, Overloaded,
        DeadlineExceeded: from the embedder.
    """
    vectors = np.zeros((len(texts), info.dim), np.float32)
    refused: dict[int, InvalidRequest] = {}

    loop = asyncio.get_running_loop()
    until = None if timeout_s is None else loop.time() + timeout_s

    def time_left_s() -> float | None:
        return None if until is None else max(0.0, until - loop.time())

    async def call(batch: Sequence[str]) -> Embeddings:
        left = time_left_s()
        return await embedder.embed(
            batch,
            TextRole.DOCUMENT,
            expected_fingerprint=info.fingerprint,
            lane=lane,
            timeout_s=_BATCH_TIMEOUT_S if left is None else left,
        )

    async def call_lane(batch: Sequence[str]) -> Embeddings:
        if lane is not Lane.BULK:
            return await call(batch)
        return await retry_while_overloaded(lambda: call(batch), timeout_s=time_left_s())

    async def embed(first: int, batch: Sequence[str]) -> None:
        try:
            reply = await call_lane(batch)
        except InvalidRequest as error:
            if len(batch) == 1:
                refused[first] = error
                return
            # Embed both halves, so that only the offending text fails.
            middle = len(batch) // 2
            await embed(first, batch[:middle])
            await embed(first + middle, batch[middle:])
        else:
            vectors[first : first + len(batch)] = reply.vectors

    batches = _batches([text[: info.max_characters] for text in texts], info)

    async def work() -> None:
        # All workers share the iterator: an idle worker takes the next batch.
        for first, batch in batches:
            await embed(first, batch)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(services * _IN_FLIGHT, len(texts))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        # The first error cancelled the other workers.
        raise first_of(errors) from None
    return DocumentEmbeddings(vectors, refused)


def _batches(texts: Sequence[str], info: EmbedderInfo) -> Iterator[tuple[int, Sequence[str]]]:
    """Yields batches of texts with the position of their first text."""
    max_texts = min(_BATCH_TEXTS, info.max_texts)
    # All batches in flight at a service use half of its queue.
    max_characters = _CHARACTERS_PER_TOKEN * info.max_queued_tokens // (2 * _IN_FLIGHT)
    first = characters = 0
    for place, text in enumerate(texts):
        full = place - first == max_texts or characters + len(text) > max_characters
        if full and place > first:
            yield first, texts[first:place]
            first, characters = place, 0
        characters += len(text)
    if first < len(texts):
        yield first, texts[first:]
