"""A process that serves embeddings computed from hashes: no model is needed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from embedding.servicer import registration
from nearline import serving
from nearline.contract import Embeddings
from nearline.errors import Unsupported
from nearline.settings import ServerSettings, parse_arguments
from tests.index_builder.embedders import HashEmbedder


class Embedder(HashEmbedder):
    """It has no cross-encoder."""

    async def rerank(self, *given: object, **more: object) -> None:
        raise Unsupported("there is no reranker")

    entail = rerank

    async def embed_stream(self, requests: AsyncIterator[Any]) -> AsyncIterator[Embeddings]:
        async for one in requests:
            yield await self.embed(one.texts, one.role)


async def main(argv: Sequence[str]) -> None:
    """Serves until the process is asked to stop."""
    # Like the service, as far as these tests need it.
    embedder = cast(Any, Embedder())

    async def ready() -> None:
        pass

    chosen = ServerSettings.load(parse_arguments(argv, ServerSettings))
    await serving.serve(chosen, [registration(lambda: embedder)], ready=ready)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding")
