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
_IDS = "ids.txt"


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
    ids_file(dataset.folder).write_text("\n".join(map(row_id, range(len(dataset.base)))), "utf-8")


def ids_file(folder: Path) -> Path:
    """Returns the file of ids by index row."""
    return folder / _IDS


def dense_index(folder: Path) -> Path:
    """Returns the FAISS index of the snapshot."""
    task = SearchTask(folder, k=0, ef=0, concurrency=0, threads=0, collection=COLLECTION)
    return index_file(task)
