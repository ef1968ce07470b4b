"""A re-embedding in a separate process that stalls until killed: STORE LOG STALL_AFTER."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.compaction import compaction_options, reembed
from tests.index_builder.pipeline.killed_build import StallingEmbedder


async def main(store: str, log: str, stall_after: str) -> None:
    """Re-embeds."""
    embedder = StallingEmbedder(float(stall_after), Path(log))
    embedder.fingerprint = "other"
    options = compaction_options(BuildOptions(store=store, golden_queries=0))
    await reembed(options, None, embedder)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
