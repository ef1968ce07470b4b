"""The generation service: `python -m generation --retrieval HOST:PORT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from generation.service import GenerationService
from generation.servicer import GenerationServicer
from generation.settings import GenerationSettings
from nearline import serving, settings, telemetry
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.v1 import generation_pb2_grpc


async def main(argv: Sequence[str]) -> None:
    """Serves until told to stop."""
    chosen = settings.load_from_process(GenerationSettings, argv)
    telemetry.configure_logging(chosen.log_level, "generation")
    retrieval = RetrievalClient(chosen.retrieval)
    embedding = EmbeddingClient(chosen.embedding) if chosen.embedding else None
    service = GenerationService(retrieval, embedding)

    async def ready() -> None:
        # Nothing is loaded here; whether a router answers is told by each call.
        return None

    async def close() -> None:
        await retrieval.close()
        if embedding is not None:
            await embedding.close()

    await serving.serve(
        chosen,
        [
            serving.Registration(
                "nearline.v1.GenerationService",
                lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
                    GenerationServicer(service), server
                ),
            )
        ],
        ready=ready,
        close=close,
    )


if __name__ == "__main__":
    serving.let_run_on()
    serving.run(main(sys.argv[1:]), "generation")
