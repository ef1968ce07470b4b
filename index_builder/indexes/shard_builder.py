"""Builds the index file of a shard: on a GPU where it helps, otherwise on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_builder.execution.build_device import BuildDevice, GpuFailed
from index_builder.indexes import faiss_writer
from index_builder.indexes.exact_search import ExactResults, shard_recall
from index_builder.indexes.faiss_writer import Advance, SearchDefaults, build_index, write_index
from index_builder.options.build_options import IndexOptions
from index_builder.options.devices import AUTO_DEVICE, CPU, gpu_number
from nearline.errors import InvalidRequest
from retrieval.index.vectors.faiss_index import read_index

WORKER = "index_builder.indexes.gpu_worker"
# The CPU builds a graph of fewer vectors in the seconds that a GPU needs to start.
LEAST_VECTORS = 10_000
# The release gate's default.
LEAST_RECALL = 0.95
_COUNT_S = 60.0
# A GPU that is slower than this is of no use: two cores build a graph of 2,000 vectors per second.
_START_S = 300.0
_VECTORS_PER_S = 2_000
# FAISS precomputes a table for codes of lists, even for a trained index without vectors. Source:
# faiss, precomputed_table_max_bytes.
_TABLE_BYTES = 2 << 30


def find_device(device: str, check_cancelled: Callable[[], None] = lambda: None) -> BuildDevice:
    """Returns the device of a build.

    Args:
        device: auto, cpu, cuda or cuda:N. auto is the first GPU if the installed FAISS can use one.
        check_cancelled: See `BuildDevice`.
    Raises: InvalidRequest: it names a GPU that FAISS cannot use.
    """
    found = BuildDevice(check_cancelled=check_cancelled)
    if device == CPU or (device == AUTO_DEVICE and not faiss_writer.HAS_GPU_SUPPORT):
        return found
    problem, gpus = "the installed FAISS is built for CPUs", 0
    if faiss_writer.HAS_GPU_SUPPORT:
        try:
            gpus = int(found.call(WORKER, "count", {}, (), _COUNT_S).values["gpus"])
            problem = f"CUDA shows {gpus} of them to this process"
        except GpuFailed as error:
            problem = f"FAISS cannot count GPUs: {error}"
            found.note(problem)
    number = gpu_number(device)
    if number < gpus:
        return BuildDevice(number=number, check_cancelled=check_cancelled)
    if device == AUTO_DEVICE:
        return found
    raise InvalidRequest(
        f"device is {device}, but {problem}; run nearline doctor to see what is missing, or use "
        "--device auto or cpu",
        field="device",
    )


def build_shard(
    factory: str,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    options: IndexOptions,
    exact: ExactResults,
    target: Path,
    *,
    shard: int,
    seed: int,
    advance: Advance,
    device: BuildDevice,
) -> tuple[Any, SearchDefaults]:
    """Builds the index of a shard and writes its file.

    A graph from a GPU is only kept if it finds `LEAST_RECALL` of the exact results, or the target
    recall of the options if that is higher.

    Args:
        exact: Queries with their results in the whole collection.
        target: The file; it may be mapped by the returned index.
        device: Receives a note if the GPU could not do its part.
    Returns: As `build_index`, which has the other arguments.
    Raises: As `build_index` and `write_index`.
    """
    trained = None
    work = "" if device.number is None else faiss_writer.gpu_work(factory, vectors.shape[1])
    if work and len(rows) >= LEAST_VECTORS and (file := _whole_file(vectors)):
        values = {
            "factory": factory,
            "vectors": file,
            "shape": vectors.shape,
            "options": asdict(options),
            "seed": seed,
            "target": str(target),
        }
        try:
            if work == "graph":
                index = _build_graph(device, values, rows, options, exact, vectors)
                advance(len(rows))
                return index, faiss_writer.search_defaults(index, options)
            trained = _train_lists(device, values, rows)
        except GpuFailed as error:
            target.unlink(missing_ok=True)
            device.note(f"index of shard {shard}: built on the CPU, because {error}")
    index, defaults = build_index(
        factory,
        vectors,
        rows,
        options,
        shard=shard,
        seed=seed,
        advance=advance,
        trained=trained,
    )
    write_index(index, target)
    return index, defaults


def _whole_file(vectors: NDArray[np.float32]) -> str:
    """Returns the file that has these vectors and nothing else; empty if there is none."""
    if not isinstance(vectors, np.memmap) or vectors.filename is None:
        return ""
    whole = vectors.nbytes == Path(vectors.filename).stat().st_size
    return str(vectors.filename) if whole else ""


def _train_lists(device: BuildDevice, values: dict[str, Any], rows: NDArray[np.int64]) -> Any:
    index = _run_worker(device, "lists", values, rows)
    if not index.is_trained or index.ntotal:
        raise GpuFailed("its index is not trained")
    return index


def _build_graph(
    device: BuildDevice,
    values: dict[str, Any],
    rows: NDArray[np.int64],
    options: IndexOptions,
    exact: ExactResults,
    vectors: NDArray[np.float32],
) -> Any:
    if not faiss_writer.HAS_CAGRA:
        raise GpuFailed("the installed FAISS has no CAGRA; faiss-gpu-cuvs has it")
    if not len(exact.queries):
        raise GpuFailed("nothing checks its graph: golden_queries is 0")
    index = _run_worker(device, "graph", values, rows, faiss_writer.IO_FLAG_MMAP_GRAPH)
    if index.ntotal != len(rows):
        raise GpuFailed(f"its graph has {index.ntotal:,} of {len(rows):,} vectors")
    defaults = faiss_writer.search_defaults(index, options)
    k = exact.rows.shape[1]
    places, _ = faiss_writer.search_index(index, exact.queries, k, defaults)
    recall = shard_recall(exact, vectors, rows, places)
    least = max(LEAST_RECALL, options.target_recall)
    if recall < least:
        raise GpuFailed(f"its graph has recall@{k} {recall:.4f}, less than {least:g}")
    return index


def _run_worker(
    device: BuildDevice,
    work: str,
    values: dict[str, Any],
    rows: NDArray[np.int64],
    flags: int = 0,
) -> Any:
    """Returns the index that a worker wrote."""
    device.call(WORKER, work, values, [rows], _START_S + len(rows) / _VECTORS_PER_S)
    try:
        return read_index(Path(values["target"]), flags, table_bytes=_TABLE_BYTES)
    except (RuntimeError, MemoryError, OSError) as error:
        raise GpuFailed(f"its index cannot be read: {error}") from error
