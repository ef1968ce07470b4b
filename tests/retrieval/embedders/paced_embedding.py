"""A process that embeds one call at a time, each in a set time, and notes the texts in a file.

Its model is `HashEmbedder`; NEARLINE_TEST_DELAY_S and NEARLINE_TEST_LOG say how long and where.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from embedding.servicer import registration
from nearline import serving
from nearline.contract import Embeddings, TextRole
from nearline.settings import ServerSettings, parse_arguments
from tests.index_builder.embedders import HashEmbedder

DELAY_S, LOG = "NEARLINE_TEST_DELAY_S", "NEARLINE_TEST_LOG"


class PacedEmbedder(HashEmbedder):
    """Embeds one call after another, each in `delay_s`."""

    def __init__(self, delay_s: float, log: Path) -> None:
        super().__init__()
        self._delay_s = delay_s
        self._path = log
        self._one = asyncio.Lock()

    async def embed(self, texts: Sequence[str], *words: Any, **options: Any) -> Embeddings:
        """Embeds texts."""
        async with self._one:
            await asyncio.sleep(self._delay_s)
            with self._path.open("a", encoding="utf-8") as stream:
                role = words[0] if words else TextRole.DOCUMENT
                stream.writelines(f"{role.value} {text}\n" for text in texts)
            return await super().embed(texts, *words, **options)


async def main(argv: Sequence[str]) -> None:
    """Serves until the process is asked to stop."""
    embedder = cast(Any, PacedEmbedder(float(os.environ[DELAY_S]), Path(os.environ[LOG])))

    async def ready() -> None:
        pass

    chosen = ServerSettings.load(parse_arguments(argv, ServerSettings))
    await serving.serve(chosen, [registration(lambda: embedder)], ready=ready)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding")
