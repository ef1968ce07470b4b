"""Data set of `nearline bench search`: built, and searched exactly, before the measurement.

Runs in a separate process, so that the measured processes do not hold its memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.closed_loop import SearchTask
from nearline.contract import Item
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult

INDEX_FILE = "dense.faiss"


class IndexVariant(NamedTuple):
    """An index to measure: its FAISS factory string, its search task, and the device that builds
    it.
    """

    factory: str
    task: SearchTask
    device: str = "auto"


class RetrievalDataset(NamedTuple):
    """The built data set. build_s, index_bytes, builds: One per variant."""

    build_s: Sequence[float]
    index_bytes: Sequence[int]
    rows: int
    dim: int
    builds: Sequence[BuildResult]


def prepare_dataset(sides: Sequence[IndexVariant], vectors: Path, queries: int) -> RetrievalDataset:
    """Builds a collection for each side, and the exact results.

    Args:
        sides: Variants to build, all in one folder.
        vectors: .npy matrix, (n, d) floats.
        queries: Number of rows held out as queries.
    Raises:
        InvalidRequest: The file cannot be used.
    """
    task = sides[0].task
    matrix = np.array(read_matrix(vectors), np.float32)
    if len(matrix) < queries + task.k:
        raise InvalidRequest(
            f"{vectors} has {len(matrix)} vectors; {queries} queries with k {task.k} need at "
            f"least {queries + task.k}",
            field="vectors",
        )
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    order = np.random.default_rng(0).permutation(len(matrix))
    held_out, base = matrix[np.sort(order[:queries])], matrix[np.sort(order[queries:])]
    ids = [f"{row:09d}" for row in range(len(base))]
    task.ids.write_text("\n".join(ids), "utf-8")
    np.savez(task.folder / "exact.npz", queries=held_out, edge=exact_edges(base, held_out, task.k))
    np.save(task.folder / "base.npy", base)
    build_s, builds = [], []
    for side in sides:
        start = time.perf_counter()
        items = (Item(id=one, vector=row) for one, row in zip(ids, base, strict=True))
        builds.append(build_collection(side, items))
        build_s.append(time.perf_counter() - start)
    sizes = [index_file(side.task).stat().st_size for side in sides]
    return RetrievalDataset(build_s, sizes, len(base), base.shape[1], builds)


def index_file(task: SearchTask) -> Path:
    """Returns the path of the served index."""
    from nearline.store.snapshot import Store, shard_folder

    store = Store(task.store)
    snapshot_id = store.alias_in_force(task.collection).current
    return shard_folder(store.snapshot_folder(task.collection, snapshot_id), 0) / INDEX_FILE


def build_collection(side: IndexVariant, documents: Iterator[Item]) -> BuildResult:
    """Builds the collection of a variant, with default options."""
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    options = BuildOptions(
        store=str(side.task.store),
        collection=side.task.collection,
        index=IndexOptions(factory=side.factory, ef_search=side.task.ef or 64),
        device=side.device,
    )
    return asyncio.run(build_snapshot(documents, options))


def read_matrix(path: Path) -> NDArray[Any]:
    """Returns the matrix of a .npy file, mapped: (n, d) floats.

    Raises:
        InvalidRequest: The file cannot be read, or has no (n, d) floats.
    """
    try:
        matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{path} cannot be read as a .npy file: {error}", field="vectors"
        ) from error
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise InvalidRequest(
            f"{path} holds {matrix.dtype} of shape {matrix.shape}; (n, d) floats are needed",
            field="vectors",
        )
    return matrix


def exact_edges(
    base: NDArray[np.float32], held_out: NDArray[np.float32], k: int
) -> NDArray[np.float32]:
    """Returns the score of each query's exact k-th best row: hits that score as well are
    correct.
    """
    edges = []
    for first in range(0, len(held_out), 100):
        scores = held_out[first : first + 100] @ base.T
        edges.append(np.partition(scores, -k, axis=1)[:, -k])
    return np.concatenate(edges)
