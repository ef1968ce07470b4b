"""Embedding services, looked up by the fingerprint of their model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from nearline.contract import Embedder, EmbedderInfo, Lane
from nearline.errors import Unsupported
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.embedders.documents import DocumentEmbeddings, embed_documents
from retrieval.embedders.endpoint import EmbeddingEndpoint
from retrieval.embedders.group import EndpointGroup, QueryVectors


class Embedders:
    """Embeds texts with the model of a fingerprint.

    The models of the services are looked up when a text needs them, not at start: a router serves
    vectors and ids while its embedder is unavailable. Several services with the same model share
    its calls; see `EndpointGroup`.

    Args:
        services: Embedders by address.
    """

    def __init__(self, services: Mapping[str, Embedder]) -> None:
        self._endpoints = [EmbeddingEndpoint(*one) for one in services.items()]
        self._retries = RetryBudget(0.1, floor_per_s=2.0, burst=100.0)

    async def embed(
        self, texts: Sequence[str], fingerprint: str, timeout_s: float | None
    ) -> QueryVectors:
        """Embeds queries.

        Args:
            texts: n non-empty texts; split into several calls if a service's limit requires it.
            fingerprint: Fingerprint of the model.
            timeout_s: Seconds left; None uses the limit of the service.
        Returns: n vectors.
        Raises: SnapshotMismatch: no service has the model; names the models available. NotReady:
            none with the model answers. Overloaded, DeadlineExceeded, InvalidRequest: from the
            service. Unsupported: there is no service.
        """
        return await self.group(fingerprint).embed_queries(texts, timeout_s)

    async def rerank(
        self, query: str, texts: Sequence[str], fingerprint: str, snapshot: str, timeout_s: float
    ) -> Sequence[float]:
        """Scores texts by the reranker of a snapshot, COLLECTION/SNAPSHOT_ID; see `Reranker`.

        Raises: As `embed`. Unsupported, NotFound: the service cannot run the reranker.
        """
        return await self.group(fingerprint).rerank(query, texts, snapshot, timeout_s)

    async def embed_documents(
        self, texts: Sequence[str], fingerprint: str, lane: Lane, timeout_s: float | None
    ) -> DocumentEmbeddings:
        """Embeds chunks of documents; see `documents.embed_documents`.

        Raises: as `embed`; rejected texts are part of the result.
        """
        group = self.group(fingerprint)
        info = await group.info(timeout_s)
        return await embed_documents(group, info, texts, lane, timeout_s, services=group.size)

    def group(self, fingerprint: str) -> EndpointGroup:
        """Returns the services of a model.

        Raises: Unsupported: there is no service.
        """
        if not self._endpoints:
            raise Unsupported(
                "this router has no embedding service; start it with --embedding HOST:PORT, or "
                "send vectors or item ids",
                field="query.text",
            )
        return EndpointGroup(fingerprint, self._endpoints, self._retries)

    async def infos(self) -> Mapping[str, EmbedderInfo]:
        """Looks up the models of all services that answer, by fingerprint."""
        checks = [one.check(unless_recent=False) for one in self._endpoints]
        await asyncio.gather(*(one for one in checks if one is not None))
        return {
            one.info.fingerprint: one.info
            for one in self._endpoints
            if one.info is not None and not one.health.away
        }
