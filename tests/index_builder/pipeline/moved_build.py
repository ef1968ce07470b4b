"""A build over an object store in a process of its own, to be killed: URL CORPUS LOG STALL.

STALL is a number of texts after which the embedder never answers; 0 lets the build end. AWS_… and
NEARLINE_CACHE_DIR come from the environment. Pieces of work have 100 rows, or what 0.2 s embedded.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from index_builder.pipeline import work_mover
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from tests.index_builder.embedders import DIM
from tests.index_builder.pipeline.killed_build import StallingEmbedder
from tests.index_builder.pipeline.test_work_mover import options


async def main(url: str, corpus: str, log: str, stall: str) -> None:
    """Builds."""
    vars(work_mover).update(PIECE_BYTES=100 * 4 * DIM, PIECE_S=0.2)
    embedder = StallingEmbedder(float(stall) or float("inf"), Path(log))
    await build_corpus(Corpus([Path(corpus)], DocumentColumns()), options(url), embedder)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
