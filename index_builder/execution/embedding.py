"""Embeds the chunks of a spool: each batch is written down once its vectors are there."""

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
from nearline.documents import text_to_embed
from nearline.errors import InvalidRequest
from nearline.retry import retry_while_unavailable

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
) -> int:
    """Embeds every chunk that the vector file does not have yet.

    Args:
        spool: Chunks.
        vectors: Where vectors go; what is there is not embedded again.
        embedder: Used on its bulk lane, unless the executor's workers have their own.
        info: Its card: limits, and the fingerprint that every batch must have.
        advance: Told of chunks done, those of an earlier run included.
        executor: Does it.
    Returns: Chunks embedded now.
    Raises: InvalidRequest: a text that the embedder refuses; names the document.
        SnapshotMismatch: the embedder changed, or a worker has another.
        NotReady: it was away for a minute.
    """
    written = vectors.written(spool.chunks)
    advance(int(written.sum()))
    embedded = 0
    opened = functools.partial(_worker, executor.embedder(embedder, info), info)
    job = Job(open=opened, concurrency=IN_FLIGHT, runs_model=True)

    def on_result(written: tuple[NDArray[np.int64], Embeddings]) -> None:
        # On the loop: milliseconds, and no thread is left writing when the build is cancelled.
        nonlocal embedded
        rows, reply = written
        vectors.write(rows, reply.vectors, reply.tokens, reply.truncated)
        embedded += len(rows)
        advance(len(rows))

    await executor.run(job, _batches(spool, written, info), on_result)
    return embedded


@contextlib.asynccontextmanager
async def _worker(open_embedder: OpenEmbedder, info: EmbedderInfo) -> AsyncIterator[_Embedding]:
    """Yields what embeds a batch, in whatever process it runs."""

    async def embed(batch: Sequence[Chunk]) -> tuple[NDArray[np.int64], Embeddings]:
        rows = np.array([chunk.row for chunk in batch], np.int64)
        return rows, await _embed(batch, embedder, info)

    async with open_embedder() as embedder:
        yield embed


async def embed_queries(
    texts: Sequence[str], embedder: Embedder, info: EmbedderInfo
) -> NDArray[np.float32]:
    """Embeds texts as queries, cut at what the embedder takes: (n, d) float32.

    Raises: as `embed_chunks`.
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
    """Yields the chunks that are still to be embedded, in row order."""
    max_texts = min(BATCH_TEXTS, info.max_texts)
    # Half of the service's queue for all batches in flight, at four characters a token.
    max_characters = min(_BATCH_CHARACTERS, 4 * info.max_queued_tokens // (2 * IN_FLIGHT))
    waiting: list[Chunk] = []
    characters = 0
    for chunk in spool.iter_chunks():
        if written[chunk.row]:
            continue
        # The model reads a few hundred tokens at most: nothing is lost beyond the service's limit.
        text = text_to_embed(chunk.title, chunk.text)[: info.max_characters]
        full = len(waiting) == max_texts or characters + len(text) > max_characters
        if waiting and full:
            yield waiting
            waiting, characters = [], 0
        waiting.append(chunk._replace(title="", text=text))
        characters += len(text)
    if waiting:
        yield waiting


async def _embed(chunks: Sequence[Chunk], embedder: Embedder, info: EmbedderInfo) -> Embeddings:
    """Embeds a batch; where it is refused, its halves, so that the text at fault is named."""
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
