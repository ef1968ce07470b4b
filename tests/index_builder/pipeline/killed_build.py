"""A build in a separate process that stalls until it is killed: STORE CORPUS LOG STALL.

STALL is a number of texts after which the embedder never answers, or "writing": then the build
never ends writing the items of its snapshot.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline import snapshot_writer
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Embeddings, Lane, TextRole
from tests.index_builder.embedders import HashEmbedder


class StallingEmbedder(HashEmbedder):
    """Reports and stalls after a number of embedded texts."""

    def __init__(self, stall_after: float, log: Path) -> None:
        super().__init__(log=log)
        self._stall_after = stall_after

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
        """Embeds or stalls."""
        if len(self.texts) >= self._stall_after:
            print("stalled", flush=True)
            await asyncio.get_running_loop().create_future()
        return await super().embed(texts, role, lane=lane)


def _stall(*_: object) -> None:
    print("stalled", flush=True)
    threading.Event().wait()


async def main(store: str, corpus: str, log: str, stall: str) -> None:
    """Builds."""
    if stall == "writing":
        vars(snapshot_writer)["write_items"] = _stall
    embedder = StallingEmbedder(float("inf" if stall == "writing" else stall), Path(log))
    options = BuildOptions(store=store, golden_queries=0)
    await build_corpus(Corpus([Path(corpus)], DocumentColumns()), options, embedder)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
