"""Embedding endpoints, looked up by the fingerprint of their model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Embedder, EmbedderInfo, Lane, TextRole
from nearline.errors import NearlineError, NotReady, SnapshotMismatch, Unsupported
from retrieval.embedders.documents import DocumentEmbeddings, embed_documents

_R = TypeVar("_R")
_INFO_TIMEOUT_S = 2.0


class QueryVectors(NamedTuple):
    """Vectors of queries.

    vectors: (n, d) float32, unit length. cpu_reason: Why the CPU stood in for the embedder's GPU;
    empty if it did not.
    """

    vectors: NDArray[np.float32]
    cpu_reason: str


class Embedders:
    """Embeds texts with the model of a fingerprint.

    The models of the endpoints are looked up when a text needs them, not at start: a router serves
    vectors and ids while its embedder is unavailable.

    Args:
        endpoints: Embedders by address.
    """

    def __init__(self, endpoints: Mapping[str, Embedder]) -> None:
        self._endpoints = dict(endpoints)
        self._by_fingerprint: dict[str, _Endpoint] = {}
        self._lookup_lock = asyncio.Lock()

    async def embed(
        self, texts: Sequence[str], fingerprint: str, timeout_s: float | None
    ) -> QueryVectors:
        """Embeds queries.

        Args:
            texts: n non-empty texts; split into several calls if an endpoint's limit requires it.
            fingerprint: Fingerprint of the model.
            timeout_s: Seconds left; None uses the limit of the endpoint.
        Returns: n vectors.
        Raises: SnapshotMismatch: no endpoint has the model; names the models available. NotReady,
            Overloaded, DeadlineExceeded, InvalidRequest: from the endpoint. Unsupported: there is
            no endpoint.
        """
        return await self._call(
            fingerprint, lambda known: known.embed_queries(texts, fingerprint, timeout_s)
        )

    async def embed_documents(
        self, texts: Sequence[str], fingerprint: str, lane: Lane, timeout_s: float | None
    ) -> DocumentEmbeddings:
        """Embeds chunks of documents; see `documents.embed_documents`.

        Raises: as `embed`; rejected texts are part of the result.
        """
        return await self._call(
            fingerprint,
            lambda known: embed_documents(known.embedder, known.info, texts, lane, timeout_s),
        )

    async def ask(self, fingerprint: str, ask: Callable[[Embedder], Awaitable[_R]]) -> _R:
        """Calls the endpoint of a model; looks it up again if the endpoint has changed its model.

        Raises: as `embed`; any error of the call.
        """
        return await self._call(fingerprint, lambda known: ask(known.embedder))

    async def infos(self) -> Mapping[str, EmbedderInfo]:
        """Looks up the models of all endpoints that answer, by fingerprint."""
        answers = await asyncio.gather(*map(_info_of, self._endpoints.values()))
        return {one.fingerprint: one for one in answers if isinstance(one, EmbedderInfo)}

    async def endpoint(self, fingerprint: str) -> Embedder:
        """Looks up the endpoint of a model again.

        Raises: SnapshotMismatch: no endpoint has the model. NotReady: an endpoint is unavailable.
        """
        self._by_fingerprint.pop(fingerprint, None)
        return (await self._find(fingerprint)).embedder

    async def _call(self, fingerprint: str, make: Callable[[_Endpoint], Awaitable[_R]]) -> _R:
        known = self._by_fingerprint.get(fingerprint)
        if known is not None:
            try:
                return await make(known)
            except SnapshotMismatch:
                # The service was restarted with a different model: look up its fingerprint again.
                self._by_fingerprint.pop(fingerprint, None)
        return await make(await self._find(fingerprint))

    async def _find(self, fingerprint: str) -> _Endpoint:
        async with self._lookup_lock:
            known = self._by_fingerprint.get(fingerprint)
            if known is not None:
                return known
            if not self._endpoints:
                raise Unsupported(
                    "this router has no embedding service; start it with --embedding HOST:PORT, or "
                    "send vectors or item ids",
                    field="query.text",
                )
            answers = await asyncio.gather(*map(_info_of, self._endpoints.values()))
            found = dict(zip(self._endpoints, answers, strict=True))
            for address, answer in found.items():
                if isinstance(answer, EmbedderInfo):
                    endpoint = _Endpoint(self._endpoints[address], answer)
                    self._by_fingerprint[answer.fingerprint] = endpoint
            if fingerprint in self._by_fingerprint:
                return self._by_fingerprint[fingerprint]
        raise _not_found_error(fingerprint, found)


class _Endpoint(NamedTuple):
    """An endpoint whose model is known."""

    embedder: Embedder
    info: EmbedderInfo

    async def embed_queries(
        self, texts: Sequence[str], fingerprint: str, timeout_s: float | None
    ) -> QueryVectors:
        parts = await asyncio.gather(
            *(
                self.embedder.embed(
                    texts[at : at + self.info.max_texts],
                    TextRole.QUERY,
                    expected_fingerprint=fingerprint,
                    timeout_s=timeout_s,
                )
                for at in range(0, len(texts), self.info.max_texts)
            )
        )
        reasons = (part.served_by.reason for part in parts)
        return QueryVectors(
            np.concatenate([part.vectors for part in parts]), next(filter(None, reasons), "")
        )


async def _info_of(embedder: Embedder) -> EmbedderInfo | NearlineError:
    try:
        async with asyncio.timeout(_INFO_TIMEOUT_S):
            return await embedder.info()
    except NearlineError as error:
        return error
    except TimeoutError:
        return NotReady(f"no answer within {_INFO_TIMEOUT_S:g} s")


def _not_found_error(
    fingerprint: str, found: Mapping[str, EmbedderInfo | NearlineError]
) -> NearlineError:
    answers = [
        f"{address} says: {one}"
        if isinstance(one, NearlineError)
        else f"{address} has {one.fingerprint}"
        for address, one in found.items()
    ]
    if any(isinstance(one, NearlineError) for one in found.values()):
        return NotReady(
            f"no embedding service with model fingerprint {fingerprint} answers: "
            + "; ".join(answers)
        )
    return SnapshotMismatch(
        f"the collection was embedded with model fingerprint {fingerprint}, but "
        f"{', '.join(answers)}; start an embedding service with the collection's model, or rebuild "
        "the collection with this one"
    )
