"""Starts the embedding service: `python -m embedding [--port N] [--backend auto] …`."""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import logging
import os
import signal
import sys

from embedding.service import EmbeddingService
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings, cache_folder
from nearline import serving, settings, telemetry
from nearline.errors import NotReady

_log = logging.getLogger("embedding")


async def main(argv: list[str]) -> None:
    """Serves until SIGTERM or SIGINT, or until the model breaks."""
    chosen = settings.load_from_process(EmbeddingSettings, argv)
    telemetry.configure_logging(chosen.log_level, "embedding")
    # Model threads take a batch between two events of the loop; do not let them wait 5 ms for it.
    sys.setswitchinterval(0.001)
    started: list[EmbeddingService] = []
    broken: list[str] = []

    def on_broken() -> None:
        # A dead model must not look healthy: exit, and let the supervisor restart the service.
        broken.append("the model fails on every text; see the log for the engine's error")
        _log.critical("model_broken")
        os.kill(os.getpid(), signal.SIGTERM)

    async def ready() -> None:
        folder = cache_folder(chosen, os.environ)
        started.append(await EmbeddingService.open(chosen, folder, on_broken=on_broken))

    async def close() -> None:
        for service in started:
            await service.close()

    await serving.serve(chosen, [registration(lambda: started[0])], ready=ready, close=close)
    if broken:
        raise NotReady(broken[0])


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding")
