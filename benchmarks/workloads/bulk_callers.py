"""Callers that keep the bulk lane of the embedding service full, and the load of other
processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.prepared_calls import closed_loop
from nearline.clients import EmbeddingClient
from nearline.contract import EmbedderInfo, Embeddings, Lane

# Of the benches: texts of a request, and requests in progress.
BATCH_TEXTS, IN_FLIGHT = 64, 4
_TIMEOUT_S = 120.0


class EmbeddingRate(NamedTuple):
    """Texts and tokens per second."""

    texts: float
    tokens: float


class BulkCallers:
    """Callers on the bulk lane with a fixed number of requests in flight.

    Args:
        client: Client of the embedding service.
        texts: Texts to embed repeatedly.
        info: Card of the embedder.
        batch_texts: Texts per request.
        in_flight: Concurrent requests.
    Attributes:
        fallbacks: Reasons of replies that the CPU gave in place of a GPU.
    """

    def __init__(
        self,
        client: EmbeddingClient,
        texts: Sequence[str],
        info: EmbedderInfo,
        batch_texts: int,
        in_flight: int,
    ) -> None:
        self.fallbacks: set[str] = set()
        self._client = client
        self._in_flight = in_flight
        self._max_tokens = info.max_tokens
        self._batches = [
            texts[start : start + batch_texts] for start in range(0, len(texts), batch_texts)
        ]

    async def vectors(self) -> NDArray[np.float32]:
        """Embeds every text once; returns (n, dim) float32."""
        calls = await closed_loop(self._embed, iter(range(len(self._batches))), self._in_flight)
        replies = sorted(calls.replies, key=lambda reply: reply[0])
        return np.concatenate([reply.vectors for _, reply in replies])

    async def rate(self, seconds: float) -> EmbeddingRate:
        """Keeps the lane full; returns texts and tokens per second."""

        async def count(number: int) -> tuple[int, int]:
            reply = await self._embed(number)
            return len(reply.vectors), int(np.minimum(reply.tokens, self._max_tokens).sum())

        numbers = itertools.cycle(range(len(self._batches)))
        calls = await closed_loop(count, numbers, self._in_flight, seconds)
        # Every started request counts, over the time until the last one was answered.
        texts, tokens = np.sum([counts for _, counts in calls.replies], axis=0).tolist()
        return EmbeddingRate(texts / calls.spent_s, tokens / calls.spent_s)

    async def _embed(self, number: int) -> Embeddings:
        batch = self._batches[number]
        reply = await self._client.embed(batch, lane=Lane.BULK, timeout_s=_TIMEOUT_S)
        if reply.served_by.reason:
            self.fallbacks.add(reply.served_by.reason)
        return reply


class OtherCpuUse:
    """Measures the share of CPU time that went to other processes since its creation."""

    def __init__(self) -> None:
        self._before = self._look()

    def cpu_ratio(self) -> float:
        """Returns the share, 0..1."""
        all_s, busy_s, ours_s = (b - a for a, b in zip(self._before, self._look(), strict=True))
        return max(0.0, busy_s - ours_s) / all_s

    def _look(self) -> tuple[float, float, float]:
        import psutil

        times = psutil.cpu_times()
        # Guest time is part of user time.
        all_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        me = psutil.Process()
        ours = [one.cpu_times() for one in (me, *me.children(recursive=True))]
        return all_s, all_s - idle_s, sum(times.user + times.system for times in ours)
