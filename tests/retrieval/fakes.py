"""Stand-ins whose answers can be computed by hand."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nearline.contract import (
    EmbedderInfo,
    Embeddings,
    Lane,
    ServedBy,
    TextRole,
)
from nearline.errors import NearlineError, SnapshotMismatch
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
)
from retrieval.protocols.shard import (
    CountRequest,
    ItemsRequest,
    ScanRequest,
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
    ShardSuggestions,
    SuggestRequest,
)
from tests.retrieval.small_snapshots import FINGERPRINT


class FakeEmbedder:
    """Embeds a text that is a number as that unit vector; counts calls and remembers roles."""

    def __init__(self, dim: int, fingerprint: str = FINGERPRINT) -> None:
        self.dim = dim
        self.fingerprint = fingerprint
        self.error: NearlineError | None = None
        self.served_by = ServedBy()
        self.calls: list[tuple[list[str], TextRole, float | None]] = []

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
        self.calls.append((list(texts), role, timeout_s))
        if self.error is not None:
            raise self.error
        if expected_fingerprint not in ("", self.fingerprint):
            raise SnapshotMismatch(f"this is {self.fingerprint}, not {expected_fingerprint}")
        n = len(texts)
        return Embeddings(
            vectors=self.vectors(texts),
            fingerprint=self.fingerprint,
            tokens=np.ones(n, np.int64),
            truncated=np.zeros(n, np.bool_),
            served_by=self.served_by,
        )

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.eye(self.dim, dtype=np.float32)[[int(text) for text in texts]]

    async def info(self) -> EmbedderInfo:
        if self.error is not None:
            raise self.error
        return EmbedderInfo(
            model="fake",
            fingerprint=self.fingerprint,
            dim=self.dim,
            max_tokens=256,
            max_texts=4,
            max_characters=1000,
            max_queued_tokens=1000,
            backend="fake",
            min_cosine=1.0,
            tokens_per_second=1.0,
        )


class WordEmbedder(FakeEmbedder):
    """Embeds a text as the sum of a fixed random direction for each of its words, unit length."""

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([word_vector(text, self.dim) for text in texts])


def word_vector(text: str, dim: int) -> NDArray[np.float32]:
    """Returns the vector of a text, (dim,) float32, as `WordEmbedder` does."""
    total = np.zeros(dim)
    for word in text.lower().split():
        total += np.random.default_rng(zlib.crc32(word.encode())).normal(size=dim)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


class SilentShard:
    """Never answers. error: If set, every request fails with it at once."""

    has_words = True
    error: Any = None

    @property
    def server(self) -> int:
        return id(self)

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> asyncio.Future[Sequence[ShardHits]]:
        future: asyncio.Future[Sequence[ShardHits]] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
        return future

    async def _end(self) -> NoReturn:
        if self.error is None:
            await asyncio.Event().wait()
        raise self.error or AssertionError

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        await self._end()

    async def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> ShardItems:
        await self._end()

    async def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> ShardCounts:
        await self._end()

    async def suggest(
        self, snapshot_id: str, request: SuggestRequest, deadline: float | None = None
    ) -> ShardSuggestions:
        await self._end()

    async def candidates(
        self,
        snapshot_id: str,
        request: CandidatesRequest,
        deadline: float | None = None,
        also: Sequence[int] = (),
        then: UseCandidates | None = None,
    ) -> ShardCandidates:
        await self._end()

    async def history(
        self, snapshot_id: str, request: HistoryRequest, deadline: float | None = None
    ) -> StoredHistory:
        await self._end()

    async def ready(self, snapshot_id: str) -> bool:
        return False


class FailingShard(SilentShard):
    """Fails at once."""

    def __init__(self, error: Exception) -> None:
        self.error = error
