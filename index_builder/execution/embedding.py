"""Embedding of the chunks of a spool; each batch is stored as soon as it has its vectors."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.spool import Chunk, Spool
from index_builder.documents.vector_file import VectorFile
from index_builder.execution.executor import Executor, Job, OpenEmbedder
from nearline.contract import Embedder, EmbedderInfo, Embeddings, Lane, TextRole
from nearline.errors import InvalidRequest
from nearline.items.documents import text_to_embed
from nearline.retry import retry_while_unavailable
from retrieval.embedders.clients import EmbeddingClients
from retrieval.embedders.group import EndpointGroup

_Embedding = Callable[[Sequence[Chunk]], Awaitable[tuple[NDArray[np.int64], Embeddings]]]
BATCH_TEXTS = 256
_QUERIES_PER_CALL = 64
IN_FLIGHT = 4
_BATCH_CHARACTERS = 1 << 20
_TIMEOUT_S = 120.0


async def embed_chunks(
    spool: Spool,
    vectors: VectorFile,
    embedder: Embedder,
    info: EmbedderInfo,
    advance: Callable[[int], None],
    executor: Executor,
    on_written: Callable[[NDArray[np.int64], Embeddings], None] = lambda rows, reply: None,
) -> int:
    """Embeds every chunk that the vector file lacks.

    Args:
        spool: Chunks.
        vectors: Receives the vectors; its rows are not embedded again.
        embedder: Used on its bulk lane, unless the executor's workers have their own.
        info: Describes the embedder: limits, and the fingerprint that every batch must have.
        advance: Called with the number of chunks done.
        executor: Runs the work.
        on_written: Called with each batch, once it is written.
    Returns: Number of chunks embedded now.
    Raises: InvalidRequest: the embedder refuses a text; the message names the document.
        SnapshotMismatch: the model of the embedder changed, or a worker has a different model.
        NotReady: the embedder was unavailable for a minute.
    """
    written = vectors.written(spool.chunks)
    embedded = 0
    opened = functools.partial(_worker, executor.embedder(embedder, info), info)
    services = embedder.size if isinstance(embedder, EmbeddingClients | EndpointGroup) else 1
    job = Job(open=opened, concurrency=services * IN_FLIGHT, runs_model=True)

    def on_result(batch: tuple[NDArray[np.int64], Embeddings]) -> None:
        # Runs on the event loop: it takes milliseconds, and after a cancellation no thread
        # continues to write.
        nonlocal embedded
        rows, reply = batch
        vectors.write(rows, reply.vectors, reply.tokens, reply.truncated)
        embedded += len(rows)
        on_written(rows, reply)
        advance(len(rows))

    await executor.run(job, _batches(spool, written, info), on_result)
    return embedded


@contextlib.asynccontextmanager
async def _worker(open_embedder: OpenEmbedder, info: EmbedderInfo) -> AsyncIterator[_Embedding]:
    """Yields a function that embeds a batch in the process of the worker."""

    async def embed(batch: Sequence[Chunk]) -> tuple[NDArray[np.int64], Embeddings]:
        rows = np.array([chunk.row for chunk in batch], np.int64)
        return rows, await _embed(batch, embedder, info)

    async with open_embedder() as embedder:
        yield embed


async def embed_queries(
    texts: Sequence[str], embedder: Embedder, info: EmbedderInfo
) -> NDArray[np.float32]:
    """Embeds texts as queries, truncated to the limit of the embedder: (n, d) float32.

    Raises: As `embed_chunks`.
    """
    parts = [np.empty((0, info.dim), np.float32)]
    step = min(_QUERIES_PER_CALL, info.max_texts)
    for first in range(0, len(texts), step):
        batch = [text[: info.max_characters] for text in texts[first : first + step]]
        reply = await retry_while_unavailable(
            lambda batch=batch: embedder.embed(  # type: ignore[misc]
                batch,
                TextRole.QUERY,
                expected_fingerprint=info.fingerprint,
                lane=Lane.BULK,
                timeout_s=_TIMEOUT_S,
            )
        )
        parts.append(reply.vectors)
    return np.concatenate(parts)


def _batches(
    spool: Spool, written: NDArray[np.bool_], info: EmbedderInfo
) -> Iterator[Sequence[Chunk]]:
    """Yields batches of the chunks that are yet to be embedded, in row order."""
    max_texts = min(BATCH_TEXTS, info.max_texts)
    # All batches in flight at a service fill half of its queue, at four characters per token.
    max_characters = min(_BATCH_CHARACTERS, 4 * info.max_queued_tokens // (2 * IN_FLIGHT))
    batch: list[Chunk] = []
    characters = 0
    for chunk in spool.iter_chunks():
        if written[chunk.row]:
            continue
        # The model reads only a few hundred tokens, so cutting a text at the service's limit loses
        # nothing.
        text = text_to_embed(chunk.title, chunk.text)[: info.max_characters]
        full = len(batch) == max_texts or characters + len(text) > max_characters
        if batch and full:
            yield batch
            batch, characters = [], 0
        batch.append(chunk._replace(title="", text=text))
        characters += len(text)
    if batch:
        yield batch


async def _embed(chunks: Sequence[Chunk], embedder: Embedder, info: EmbedderInfo) -> Embeddings:
    """Embeds a batch; if it is refused, embeds its halves to find the offending text."""
    try:
        return await retry_while_unavailable(
            lambda: embedder.embed(
                [chunk.text for chunk in chunks],
                TextRole.DOCUMENT,
                expected_fingerprint=info.fingerprint,
                lane=Lane.BULK,
                timeout_s=_TIMEOUT_S,
            )
        )
    except InvalidRequest as error:
        if len(chunks) == 1:
            raise InvalidRequest(
                f"the embedder refuses a text of document {chunks[0].document_id!r}: "
                f"{error.message}",
                field="text",
            ) from error
    middle = len(chunks) // 2
    halves = [await _embed(half, embedder, info) for half in (chunks[:middle], chunks[middle:])]
    return Embeddings(
        vectors=np.concatenate([half.vectors for half in halves]),
        fingerprint=info.fingerprint,
        tokens=np.concatenate([half.tokens for half in halves]),
        truncated=np.concatenate([half.truncated for half in halves]),
    )
