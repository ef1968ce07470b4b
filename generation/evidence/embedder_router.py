"""An embedder that routes requests to several embedding services by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearline import contract as c
from retrieval.embedders.endpoints import Embedders


class EmbedderRouter:
    """An `Embedder` that sends each request to the services of the expected model.

    Questions are embedded before their snapshot is known, so a request may name no expected model.
    It then goes to the services of the model that was last expected, or to the first service if no
    request has named one yet.

    Args:
        services: Embedders by address; at least one.
    """

    def __init__(self, services: Mapping[str, c.Embedder]) -> None:
        self._services = Embedders(services)
        self._first = next(iter(services.values()))
        self._expected = ""

    async def embed(
        self,
        texts: Sequence[str],
        role: c.TextRole = c.TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.Embeddings:
        """Embeds a batch of texts; see `Embedder.embed`."""
        expected = expected_fingerprint or self._expected
        embedder = self._services.group(expected) if expected else self._first
        found = await embedder.embed(
            texts,
            role,
            dimensions=dimensions,
            expected_fingerprint=expected_fingerprint,
            lane=lane,
            timeout_s=timeout_s,
        )
        self._expected = expected
        return found

    async def info(self) -> c.EmbedderInfo:
        """Returns the model card of the first service."""
        return await self._first.info()
