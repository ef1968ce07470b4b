"""Made-up collections of vectors in folders that are kept: one matrix, and stores of its layouts.

    <work>/vectors-<rows>x<dim>/         base.npy, ids.txt and exact.npz
    <work>/vectors-<rows>x<dim>/<index>-<shards>/   links to them, and the store

A folder is complete or absent. Everything follows from the seed 0.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.workloads.closed_loop import SearchTask
from benchmarks.workloads.retrieval_dataset import exact_edges
from benchmarks.workloads.vector_clusters import TEXT_SHAPE, VectorClusters
from nearline.contract import Item

# Hits of a search.
K = 10
_BLOCK = 50_000
_MATRIX_FILES = ("base.npy", "ids.txt", "exact.npz")
_TEXT = "A made-up item: its text has about as many words as a short description of a product. " * 3


class VectorLayout(NamedTuple):
    """A collection of vectors, and how it is divided.

    rows, dim: Its size. factory: FAISS factory string. queries: Number of held-out queries.
    """

    rows: int
    dim: int
    factory: str
    shards: int
    queries: int


def prepare_layout(work: Path, layout: VectorLayout) -> SearchTask:
    """Returns the search task of a layout; builds what the folder lacks.

    Runs in a process of its own, so that the measured processes do not hold its memory. The width
    of the graph search and the number of callers are left to the caller.
    """
    matrix = work / f"vectors-{layout.rows}x{layout.dim}"
    _complete(matrix, lambda folder: _write_matrix(folder, layout))
    name = "".join(sign if sign.isalnum() else "-" for sign in layout.factory.lower())
    store = matrix / f"{name}-{layout.shards}"
    _complete(store, lambda folder: _write_store(folder, layout))
    return SearchTask(store, K, 0, 1, 1)


def _complete(folder: Path, write: Callable[[Path], None]) -> None:
    if folder.exists():
        return
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    new.rename(folder)


def _write_matrix(folder: Path, layout: VectorLayout) -> None:
    rng = np.random.default_rng(0)
    clusters = VectorClusters(rng, layout.dim, TEXT_SHAPE)
    queries = clusters.draw(rng, layout.queries)
    base = np.lib.format.open_memmap(
        folder / "base.npy", mode="w+", dtype=np.float32, shape=(layout.rows, layout.dim)
    )
    for start in range(0, layout.rows, _BLOCK):
        part = base[start : start + _BLOCK]
        part[:] = clusters.draw(rng, len(part))
    base.flush()
    (folder / "ids.txt").write_text("\n".join(map(_id, range(layout.rows))), "utf-8")
    np.savez(folder / "exact.npz", queries=queries, edge=exact_edges(base, queries, K))


def _write_store(folder: Path, layout: VectorLayout) -> None:
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    for name in _MATRIX_FILES:
        (folder / name).symlink_to(Path("..") / name)
    task = SearchTask(folder, K, 0, 1, 1)
    options = BuildOptions(
        store=str(task.store),
        collection=task.collection,
        shards=layout.shards,
        lexical=False,
        golden_queries=0,
        index=IndexOptions(factory=layout.factory),
    )
    asyncio.run(build_snapshot(_items(folder.parent / "base.npy"), options))


def _items(matrix: Path) -> Iterator[Item]:
    for row, vector in enumerate(np.load(matrix, mmap_mode="r")):
        # A copy: a view would keep the matrix mapped wherever the builder keeps vectors.
        yield Item(id=_id(row), title=f"Item {row}", text=_TEXT, vector=np.array(vector))


def _id(row: int) -> str:
    return f"{row:09d}"
