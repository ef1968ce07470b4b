"""The same items in collections of one and of four shards, with and without keyword search."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Embedder, Item

# By number of shards.
COLLECTIONS = ("one", "four")
# One shard, without keyword search.
PLAIN = "plain"


def build_collections(
    root: Path,
    items: Iterable[Item],
    embedder: Embedder,
    *,
    plain: bool = False,
    max_tokens: int = 0,
    **options: object,
) -> Path:
    """Builds COLLECTIONS, and PLAIN if asked to.

    Args:
        root: Folder of the store.
        max_tokens: Of chunks; 0 to keep documents whole.
        options: Further ones of `BuildOptions`.
    Returns: The folder.
    """
    kept = list(items)
    for collection, shards in ((COLLECTIONS[0], 1), (COLLECTIONS[1], 4), (PLAIN, 1)):
        if collection == PLAIN and not plain:
            continue
        build = BuildOptions(
            store=str(root),
            collection=collection,
            shards=shards,
            chunks=ChunkOptions(max_tokens=max_tokens),
            lexical=collection != PLAIN,
            **options,  # type: ignore[arg-type]
        )
        asyncio.run(build_snapshot(kept, build, embedder))
    return root
