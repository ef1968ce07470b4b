"""An embedding service that knows the words w0 to w99: `python -m tests.live.word_embedding`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from embedding.service import EmbeddingService
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings
from nearline import serving, settings
from tests.embedding.fakes import FakeBackend, word_model


async def main(argv: list[str]) -> None:
    """Serves until it is stopped."""
    chosen = settings.load_from_process(EmbeddingSettings, argv)
    with tempfile.TemporaryDirectory() as folder:
        service = EmbeddingService(word_model(Path(folder) / "words"), FakeBackend(), chosen)
        hosted = [registration(lambda: service)]
        await serving.serve(chosen, hosted, ready=service.start, close=service.close)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding")
