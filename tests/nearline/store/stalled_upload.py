"""A build in its own process that stalls during its upload, to be killed: URL FILE.

AWS_… and NEARLINE_CACHE_DIR come from the environment.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Literal

import obstore
from obstore.store import ObjectStore

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from tests.index_builder.embedders import HashEmbedder

UPLOADED = 2  # Files; the next never arrives.
_put = obstore.put
_seen: list[str] = []


def _stall(
    store: ObjectStore,
    path: str,
    file: Path | bytes,
    *,
    mode: Literal["create", "overwrite"] = "overwrite",
    chunk_size: int = 5 << 20,
    max_concurrency: int = 1,
) -> None:
    if mode == "create":
        # Its work, before the upload of the snapshot.
        _put(store, path, file, mode=mode)
        return
    if len(_seen) == UPLOADED:
        print("stalled", flush=True)
        threading.Event().wait()
    _seen.append(path)
    _put(store, path, file, chunk_size=chunk_size, max_concurrency=max_concurrency)


async def main(url: str, corpus: str) -> None:
    """Builds."""
    vars(obstore)["put"] = _stall
    options = BuildOptions(store=url, golden_queries=0)
    await build_corpus(Corpus([Path(corpus)], DocumentColumns()), options, HashEmbedder())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
