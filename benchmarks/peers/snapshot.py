"""The snapshot that Nearline serves; the minimal server and FAISS alone use its index, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.peers.dataset import PeerDataset, row_id
from benchmarks.workloads.closed_loop import SearchTask
from benchmarks.workloads.retrieval_dataset import index_file
from nearline.contract import Item

COLLECTION = "bench"
STORE = "store"
FACTORY = "HNSW32,Flat"


def build_store(dataset: PeerDataset) -> None:
    """Builds the collection in the folder of the data set, with default options."""
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    options = BuildOptions(
        store=str(dataset.folder / STORE),
        collection=COLLECTION,
        index=IndexOptions(factory=FACTORY),
        lexical=False,
    )
    items = (
        Item(
            id=row_id(row),
            text=dataset.text(row),
            attributes=dict(dataset.attributes(row)),
            vector=vector,
        )
        for row, vector in enumerate(dataset.base)
    )
    asyncio.run(build_snapshot(items, options))
    ids = search_task(dataset.folder).ids
    ids.write_text("\n".join(map(row_id, range(len(dataset.base)))), "utf-8")


def search_task(folder: Path, threads: int = 0) -> SearchTask:
    """Returns a task that names the files of the snapshot. threads: Of the minimal server."""
    return SearchTask(folder, k=0, ef=0, concurrency=0, threads=threads, collection=COLLECTION)


def dense_index(folder: Path) -> Path:
    """Returns the FAISS index of the snapshot."""
    return index_file(search_task(folder))
