"""Several embedding services as one embedder: who asks says which model it wants."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from nearline import contract as c
from retrieval.embedders.endpoints import Embedders


class EmbedderRouter:
    """An `Embedder` that asks the service of the model that is expected.

    Where none is expected it asks the one of the model expected last, at first the first service:
    a question is embedded before it is known what answers it.

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

        def ask(embedder: c.Embedder) -> Awaitable[c.Embeddings]:
            return embedder.embed(
                texts,
                role,
                dimensions=dimensions,
                expected_fingerprint=expected_fingerprint,
                lane=lane,
                timeout_s=timeout_s,
            )

        if expected_fingerprint:
            found = await self._services.ask(expected_fingerprint, ask)
            self._expected = expected_fingerprint
            return found
        if self._expected:
            return await self._services.ask(self._expected, ask)
        return await ask(self._first)

    async def info(self) -> c.EmbedderInfo:
        """Returns the card of the first."""
        return await self._first.info()
