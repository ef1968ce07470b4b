"""A build in a process of its own, that a test kills: python -m … STORE CORPUS LOG SLOW_AFTER."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from index_builder.corpus import Corpus, build_corpus
from index_builder.readers.mapping import Columns
from index_builder.records import BuildOptions
from tests.index_builder.embedders import HashEmbedder


class StallingEmbedder(HashEmbedder):
    """Says so and never answers once it embedded so many texts."""

    stall_after = 0

    async def embed(self, texts, *arguments, **options):  # type: ignore[no-untyped-def]
        """Embeds, or stalls."""
        if len(self.texts) >= self.stall_after:
            print("stalled", flush=True)
            await asyncio.get_running_loop().create_future()
        return await super().embed(texts, *arguments, **options)


async def main(store: str, corpus: str, log: str, stall_after: str) -> None:
    """Builds."""
    embedder = StallingEmbedder(log=Path(log))
    embedder.stall_after = int(stall_after)
    options = BuildOptions(store=store, golden_queries=0)
    result = await build_corpus(Corpus([Path(corpus)], Columns()), options, embedder)
    print(f"built {result.snapshot_id}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
