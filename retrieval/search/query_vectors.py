"""Vectors of query texts, as long as an embedder answers in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.errors import DeadlineExceeded, InternalError, NotReady, Overloaded
from nearline.tracing.spans import stage
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


async def embed_texts(
    collection: ServedCollection,
    embedders: Embedders,
    texts: Sequence[str],
    context: RequestContext,
) -> tuple[NDArray[np.float32] | None, float]:
    """Embeds the texts of queries.

    Args:
        collection: The collection, whose model is used.
        embedders: Embed the texts.
        texts: n texts.
        context: Says how long embedding may take, and records why the answer is a fallback.
    Returns: (n, d) float32, and the seconds that it took. None if no embedder answers, and the
        words of the texts can be searched instead.
    Raises: NotReady, Overloaded, DeadlineExceeded, InternalError: no embedder answers, and the
        collection has no lexical index. Other errors of the embedder.
    """
    start = time.perf_counter()
    end = context.deadline
    if collection.words_by_default and context.embed_until is not None:
        end = context.embed_until
    left = None if end is None else max(0.0, end - asyncio.get_running_loop().time())
    vectors: NDArray[np.float32] | None = None
    try:
        with stage("embed"):
            vectors, cpu_reason = await embedders.embed(texts, collection.fingerprint, left)
    except (NotReady, Overloaded, DeadlineExceeded, InternalError) as error:
        if not collection.words_by_default:
            raise
        context.words_only = f"searched by words alone, since no embedder answers: {error.message}"
        metrics.lexical_fallbacks.labels(collection.name, type(error).__name__).inc()
    else:
        context.record_fallback("embedder", cpu_reason)
    spent_s = time.perf_counter() - start
    metrics.stage_seconds.labels(collection.name, "embed").observe(spent_s)
    return vectors, spent_s
