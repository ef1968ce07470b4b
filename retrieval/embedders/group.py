"""The embedding services of one model: calls are balanced, and repeated where one fails."""

from __future__ import annotations

import asyncio
import random
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Embedder, EmbedderInfo, Embeddings, Lane, Reranker, TextRole
from nearline.errors import (
    InternalError,
    NearlineError,
    NotReady,
    Overloaded,
    SnapshotMismatch,
    Unsupported,
)
from nearline.tracing.spans import note_event
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.embedders.endpoint import CHECK_TIMEOUT_S, EmbeddingEndpoint
from retrieval.protocols import metrics

_R = TypeVar("_R")
# After these errors another service may answer. Embedding has no effects, so it may be repeated.
_RETRYABLE = (NotReady, Overloaded, InternalError, SnapshotMismatch)
# A service that hung is not waited for longer: if it is back, it answers a check at once.
_GLANCE_S = 0.2
# The work of a text besides its characters.
_TEXT_WORK = 16
_CHARACTERS_PER_TOKEN = 4


class QueryVectors(NamedTuple):
    """Vectors of queries.

    vectors: (n, d) float32, unit length. cpu_reason: Why the CPU stood in for the embedder's GPU;
    empty if it did not.
    """

    vectors: NDArray[np.float32]
    cpu_reason: str


class EndpointGroup:
    """The embedding services of one model; an `Embedder`.

    A call goes to the service with the fewest characters in flight, of those that are well. If it
    fails by no fault of the call, the call is repeated on each other service at most once, within
    its time. If a service was lost while it worked on the call, the call may be the cause: it is
    repeated on one other at most. Repetitions after an overload or an internal error have a budget
    (a tenth of the calls). A service that is away or has another model is checked while others
    answer, and is taken up once it answers with this one.

    Args:
        fingerprint: Fingerprint of the model.
        endpoints: All embedding services; those with another model are not called.
        retries: Budget of repetitions; shared by the groups of the same services.
    """

    def __init__(
        self, fingerprint: str, endpoints: Sequence[EmbeddingEndpoint], retries: RetryBudget
    ) -> None:
        self._fingerprint = fingerprint
        self._endpoints = endpoints
        self._retries = retries

    @property
    def size(self) -> int:
        """Number of the services that have the model, at least 1, by their last answers."""
        return max(1, len(self._members()))

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Embeds a batch of texts; see `Embedder.embed`."""

        def send(client: Embedder, left_s: float | None) -> Awaitable[Embeddings]:
            return client.embed(
                texts,
                role,
                dimensions=dimensions,
                expected_fingerprint=expected_fingerprint or self._fingerprint,
                lane=lane,
                timeout_s=left_s,
            )

        return await self._call(texts, send, timeout_s)

    async def embed_queries(self, texts: Sequence[str], timeout_s: float | None) -> QueryVectors:
        """Embeds queries, in several calls if the limits of the services require it.

        Raises: as `embed`.
        """
        until = _until(timeout_s)
        at_once = (await self.info(timeout_s)).max_texts
        parts = await asyncio.gather(
            *(
                self.embed(texts[at : at + at_once], TextRole.QUERY, timeout_s=_left_s(until))
                for at in range(0, len(texts), at_once)
            )
        )
        reasons = (part.served_by.reason for part in parts)
        return QueryVectors(
            np.concatenate([part.vectors for part in parts]), next(filter(None, reasons), "")
        )

    async def rerank(
        self, query: str, texts: Sequence[str], snapshot: str, timeout_s: float
    ) -> Sequence[float]:
        """Scores texts by the reranker of a snapshot; see `Reranker.rerank`."""

        def send(client: Embedder, left_s: float | None) -> Awaitable[Sequence[float]]:
            if not isinstance(client, Reranker):
                raise Unsupported("this embedding service has no rerankers")
            return client.rerank(query, texts, snapshot=snapshot, timeout_s=left_s)

        return await self._call(texts, send, timeout_s)

    async def info(self, timeout_s: float | None = None) -> EmbedderInfo:
        """Returns a card of the model, with limits that all its services have.

        Raises: NotReady: no service with the model answers. SnapshotMismatch: none has it.
        """
        if not self._members():
            await self._look_for(_until(timeout_s), ())
        cards = [one.info for one in self._members() if one.info is not None]
        if not cards:
            raise self._not_found()
        if len(cards) == 1:
            return cards[0]
        return replace(
            cards[0],
            max_texts=min(one.max_texts for one in cards),
            max_characters=min(one.max_characters for one in cards),
            max_queued_tokens=min(one.max_queued_tokens for one in cards),
        )

    async def _call(
        self,
        texts: Sequence[str],
        send: Callable[[Embedder, float | None], Awaitable[_R]],
        timeout_s: float | None,
    ) -> _R:
        until = _until(timeout_s)
        tried: list[EmbeddingEndpoint] = []
        failed: NearlineError | None = None
        self._retries.earn()
        while True:
            endpoint = await self._choose(until, tried, failed)
            if endpoint is None:
                raise failed if isinstance(failed, NotReady) else self._not_found()
            if failed is not None:
                metrics.embedder_retries.labels("made").inc()
                note_event("retry", {"embedder": endpoint.address})
            tried.append(endpoint)
            work = _work_of(texts, endpoint)
            try:
                return await endpoint.call(work, lambda client: send(client, _left_s(until)))
            except _RETRYABLE as error:
                failed = error
                if not self._may_repeat(error, tried):
                    raise

    def _may_repeat(self, error: NearlineError, tried: Collection[EmbeddingEndpoint]) -> bool:
        if error.peer_died and len(tried) > 1:
            return False
        if isinstance(error, NotReady | SnapshotMismatch):
            return True
        if self._best(tried) is None:
            return False
        if self._retries.spend(time.monotonic()):
            return True
        metrics.embedder_retries.labels("refused").inc()
        return False

    def _members(self) -> list[EmbeddingEndpoint]:
        return [
            one
            for one in self._endpoints
            if one.info is not None and one.info.fingerprint == self._fingerprint
        ]

    def _best(self, tried: Collection[EmbeddingEndpoint]) -> EmbeddingEndpoint | None:
        now = time.monotonic()
        found = [one for one in self._members() if not one.health.away and one not in tried]
        found = [one for one in found if one.health.admits(now, one.calls)] or found
        # One that is being checked may hang. Of equals, a random one: all routers prefer no one.
        return min(found, key=lambda one: (one.checked, one.work, random.random()), default=None)

    async def _choose(
        self,
        until: float | None,
        tried: Collection[EmbeddingEndpoint],
        failed: NearlineError | None,
    ) -> EmbeddingEndpoint | None:
        """Returns the service to call; None if there is none that was not tried."""
        members = self._members()
        for one in self._endpoints:
            # One that had another model may have been restarted with this one.
            if one.health.away or one not in members:
                one.check()
        found = self._best(tried)
        if found is None and (not tried or isinstance(failed, SnapshotMismatch)):
            await self._look_for(until, tried)
            found = self._best(tried)
        return found

    async def _look_for(self, until: float | None, tried: Collection[EmbeddingEndpoint]) -> None:
        """Looks up the models of services until one has the model, or all have answered."""
        checks: dict[Task[None], EmbeddingEndpoint] = {}
        for one in self._endpoints:
            # Those that are well may have been restarted with another model.
            check = one.check(unless_recent=one.silent)
            if check is not None:
                checks[check] = one
        while checks and self._best(tried) is None:
            left = CHECK_TIMEOUT_S if any(not one.silent for one in checks.values()) else _GLANCE_S
            if until is not None:
                left = min(left, until - asyncio.get_running_loop().time())
            done, _ = await asyncio.wait(
                checks, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return
            for task in done:
                del checks[task]

    def _not_found(self) -> NearlineError:
        """Returns the error for a model that no service answers for."""
        answers = [
            one.health.reason
            if one.health.away or one.info is None
            else f"{one.address} has {one.info.fingerprint}"
            for one in self._endpoints
        ]
        if any(one.health.away for one in self._endpoints):
            return NotReady(
                f"no embedding service with model fingerprint {self._fingerprint} answers: "
                + "; ".join(answers)
            )
        return SnapshotMismatch(
            f"the collection was embedded with model fingerprint {self._fingerprint}, but "
            f"{', '.join(answers)}; start an embedding service with the collection's model, or "
            "rebuild the collection with this one"
        )


def _work_of(texts: Sequence[str], endpoint: EmbeddingEndpoint) -> int:
    """Returns how much work texts are: about their characters, as far as the model reads them."""
    most = _CHARACTERS_PER_TOKEN * endpoint.info.max_tokens if endpoint.info else 1 << 20
    return sum(_TEXT_WORK + min(len(text), most) for text in texts)


def _until(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s


def _left_s(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - asyncio.get_running_loop().time())
