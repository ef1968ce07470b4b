"""Asks the judge of the embedding service whether sentences answer a question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import NearlineError

# How long the answer to "does the service have a judge?" is used.
_RECHECK_S = 60.0
_INFO_TIMEOUT_S = 1.0


@runtime_checkable
class JudgeService(c.Reranker, Protocol):
    """A reranker with a card; implemented by `nearline.clients.EmbeddingClient`."""

    async def info(self) -> c.EmbedderInfo:
        """Returns the card of the service."""
        ...


class SentenceJudge:
    """Judges sentences by the shipped judge, if the service has it.

    Other rerankers are not asked: what is learned from the scores of one is not valid for others.

    Args:
        service: The embedding service.
        clock: Time in seconds.
    """

    def __init__(self, service: JudgeService, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._available = False
        self._check_at = -np.inf
        self._checking = asyncio.Lock()

    async def score(
        self, question: str, texts: Sequence[tuple[str, str]], timeout_s: float
    ) -> tuple[NDArray[np.float32] | None, str]:
        """Returns a logit per sentence, (n,); never fails.

        Args:
            question: Text of the question; not empty.
            texts: Title, which may be empty, and sentence of each.
            timeout_s: Maximum wait.
        Returns: None without a judge, and the reason if there should be one; otherwise empty.
        """
        if not texts or not await self.is_available():
            return None, ""
        lines = [f"{' '.join(title.split())}\n{sentence}" for title, sentence in texts]
        try:
            scores = await self._service.rerank(question, lines, timeout_s=timeout_s)
        except NearlineError as error:
            return None, f"sentences are not judged: {error.message}"
        return np.array(scores, np.float32), ""

    async def is_available(self) -> bool:
        """Returns whether the service has the judge; asks it again now and then."""
        async with self._checking:
            if self._clock() < self._check_at:
                return self._available
            try:
                async with asyncio.timeout(_INFO_TIMEOUT_S):
                    info = await self._service.info()
                self._available = info.reranker == c.ANSWER_JUDGE
            except (NearlineError, TimeoutError):
                self._available = False
            self._check_at = self._clock() + _RECHECK_S
            return self._available
