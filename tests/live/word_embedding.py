"""An embedding service that knows the words w0 to w99: `python -m tests.live.word_embedding`.

With --reranker, its scores are those of `FakeEngine`: the characters of each text.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from embedding.pair_scorer import RERANKER, PairScorer
from embedding.service import EmbeddingService
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings
from nearline import serving, settings
from tests.embedding.cross_encoders import FakeEngine, pair_model
from tests.embedding.fakes import FakeBackend, word_model


def make_reranker(chosen: EmbeddingSettings) -> PairScorer | None:
    """Returns a reranker with the name in the settings; None if they have none."""
    if not chosen.reranker:
        return None
    model = pair_model(chosen.reranker)
    return PairScorer(model, FakeEngine(), max_tokens=64, setting=RERANKER, settings=chosen)


async def main(argv: list[str]) -> None:
    """Serves until it is stopped."""
    chosen = settings.load_from_process(EmbeddingSettings, argv)
    with tempfile.TemporaryDirectory() as folder:
        model = word_model(Path(folder) / "words")
        service = EmbeddingService(model, FakeBackend(), chosen, reranker=make_reranker(chosen))
        hosted = [registration(lambda: service)]
        await serving.serve(chosen, hosted, ready=service.start, close=service.close)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding")
