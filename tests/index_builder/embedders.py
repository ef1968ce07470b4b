"""An embedder with arithmetic vectors that counts its texts."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearline.contract import EmbedderInfo, Embeddings, Lane, TextRole
from nearline.errors import InvalidRequest, NearlineError

DIM = 8


class HashEmbedder:
    """Embeds a text as the unit vector seeded by its CRC-32; equal texts have equal vectors.

    Args:
        fingerprint: What the card says.
        max_tokens: Words beyond are reported as truncated.
        failures: Raised by the first calls, one each.
        log: File that gets a line per text embedded, at once.
        poison: A text that is refused.
    """

    def __init__(
        self,
        *,
        fingerprint: str = "hash",
        max_tokens: int = 256,
        failures: Sequence[NearlineError] = (),
        log: Path | None = None,
        poison: str = "",
    ) -> None:
        self.fingerprint = fingerprint
        self.max_tokens = max_tokens
        self.texts: list[str] = []
        self.lanes: set[Lane] = set()
        self._failures = list(failures)
        self._log = log
        self._poison = poison

    async def info(self) -> EmbedderInfo:
        """Returns the description of the model."""
        return EmbedderInfo(
            model="hash",
            fingerprint=self.fingerprint,
            dim=DIM,
            max_tokens=self.max_tokens,
            max_texts=64,
            max_characters=10_000,
            max_queued_tokens=1 << 20,
            backend="test",
            min_cosine=1.0,
            tokens_per_second=1e6,
        )

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
        """Embeds texts."""
        await asyncio.sleep(0)
        if self._failures:
            raise self._failures.pop(0)
        if self._poison and self._poison in texts:
            raise InvalidRequest("text cannot be embedded")
        if role is TextRole.DOCUMENT:
            self.texts += texts
            self.lanes.add(lane)
            if self._log is not None:
                with self._log.open("a", encoding="utf-8") as stream:
                    stream.writelines(f"{text}\n" for text in texts)
        words = np.array([len(text.split()) for text in texts])
        return Embeddings(
            vectors=np.stack([vector_of(text) for text in texts]),
            fingerprint=self.fingerprint,
            tokens=words,
            truncated=words > self.max_tokens,
        )


def vector_of(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Returns the vector of a text: (8,) float32 of unit length."""
    vector = np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM)
    unit: np.ndarray[tuple[int], np.dtype[np.float32]] = (vector / np.linalg.norm(vector)).astype(
        np.float32
    )
    return unit
