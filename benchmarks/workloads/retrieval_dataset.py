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

from benchmarks.workloads.closed_loop import TIE, SearchTask, exact_answers
from nearline.contract import Item
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult

INDEX_FILE = "dense.faiss"
# Widths of the graph search that are tried.
WIDTHS = (10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)


class IndexVariant(NamedTuple):
    """An index to measure: its FAISS factory string, its search task, and the device that builds
    it.
    """

    factory: str
    task: SearchTask
    device: str = "auto"


class RetrievalDataset(NamedTuple):
    """The built data set.

    sides: The variants, with the chosen widths. build_s, index_bytes, builds: One per variant.
    """

    sides: Sequence[IndexVariant]
    build_s: Sequence[float]
    index_bytes: Sequence[int]
    rows: int
    dim: int
    builds: Sequence[BuildResult]


def prepare_dataset(
    sides: Sequence[IndexVariant], vectors: Path, queries: int, seed: int, target_recall: float
) -> RetrievalDataset:
    """Builds a collection for each side, and the exact results.

    Args:
        sides: Variants to build, all in one folder.
        vectors: .npy matrix, (n, d) floats.
        queries: Number of rows held out as queries.
        seed: Seed of the sample.
        target_recall: Use the smallest width of each graph that reaches this recall; 0 uses the
            width of the task.
    Raises:
        InvalidRequest: The file cannot be used, or no width reaches the recall.
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
    order = np.random.default_rng(seed).permutation(len(matrix))
    held_out, base = matrix[np.sort(order[:queries])], matrix[np.sort(order[queries:])]
    ids = [f"{row:09d}" for row in range(len(base))]
    task.ids.write_text("\n".join(ids), "utf-8")
    np.savez(task.folder / "exact.npz", queries=held_out, edge=exact_edges(base, held_out, task.k))
    np.save(task.folder / "base.npy", base)
    build_s, builds, chosen = [], [], []
    for side in sides:
        start = time.perf_counter()
        items = (Item(id=one, vector=row) for one, row in zip(ids, base, strict=True))
        builds.append(build_collection(side, items))
        build_s.append(time.perf_counter() - start)
        if target_recall and side.task.ef:
            side = side._replace(
                task=side.task._replace(ef=_least_width(side, base, target_recall))
            )
        chosen.append(side)
    sizes = [index_file(side.task).stat().st_size for side in chosen]
    return RetrievalDataset(chosen, build_s, sizes, len(base), base.shape[1], builds)


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


def _least_width(side: IndexVariant, base: NDArray[np.float32], target_recall: float) -> int:
    from retrieval.index.vectors.faiss_index import FaissIndex
    from retrieval.index.vectors.vector_index import SearchParams

    task, exact = side.task, exact_answers(side.task)
    index = FaissIndex.load(
        index_file(task), side.factory, dim=base.shape[1], rows=len(base), ef_search=task.ef
    )
    recall = 0.0
    for width in WIDTHS:
        rows = index.search(exact["queries"], task.k, SearchParams(ef_search=width)).ids
        scores = np.einsum("nkd,nd->nk", base[rows], exact["queries"])
        recall = float((scores >= exact["edge"][:, None] - TIE).mean())
        if recall >= target_recall:
            return width
    raise InvalidRequest(
        f"{side.factory} reaches recall {recall:.4f} at ef {WIDTHS[-1]}, not {target_recall}; "
        "lower the target, or refine with more exact vectors",
        field="target_recall",
    )


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
