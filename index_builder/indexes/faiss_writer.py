"""Builds, trains and writes FAISS indexes; only `gpu_worker` imports faiss besides."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from index_builder.options.build_options import AUTO, IndexOptions
from nearline.errors import InvalidRequest
from retrieval.index.vectors.int8_codec import int8_scale, quantize, scale_queries

FLAT_LIMIT = 20_000
_FLAT = "Flat"
_GRAPH = "HNSW32,Flat"
_BLOCK_ROWS = 16_384
# FAISS also samples: it never uses more than 256 training points per centroid.
_POINTS_PER_LIST = 256
_TRAIN_ROWS = 65_536
# A refine stage rescores the results of the graph, so the graph may rank by integers.
_REFINED_SQ8 = re.compile(r"^(HNSW\d+),SQ8,(?=RFlat$|Refine\()")
_INT8_CODEC = "SQ8_direct_signed"
# Candidates per result for the refine stage, by bits per number of the base index. With fewer bits,
# the base index ranks the best vectors lower.
_REFINE_FACTORS = ((8.0, 1.5), (3.5, 3.0), (0.0, 10.0))
_FAISS_PREFIX = re.compile(r"^Error in .*? at \S+:\d+: (Error: )?", re.DOTALL)

Advance = Callable[[int], None]
# The stubs of faiss 1.15 lack most of its classes.
_faiss: Any = faiss
FAISS_VERSION: str = faiss.__version__
# Wheels for CPUs lack these classes, and CAGRA is only in wheels that contain cuVS.
HAS_GPU_SUPPORT: bool = hasattr(faiss, "StandardGpuResources")
HAS_CAGRA: bool = hasattr(faiss, "GpuIndexCagra")
IO_FLAG_MMAP_GRAPH: int = faiss.IO_FLAG_MMAP_IFC


class SearchDefaults(NamedTuple):
    """Default widths of searches; 0 if an index has no such parameter."""

    ef_search: int
    nprobe: int


def choose_factory(options: IndexOptions, vectors: int) -> str:
    """Returns the factory string for a collection of a number of vectors.

    `HNSW32,SQ8` with a refine stage becomes `HNSW32,SQ8_direct_signed` with the same stage. Both
    have 8 bits per number; the latter compares integers, see `retrieval.index.vectors.int8_codec`.
    """
    if options.factory != AUTO:
        return _REFINED_SQ8.sub(rf"\1,{_INT8_CODEC},", options.factory)
    return _FLAT if vectors <= FLAT_LIMIT else _GRAPH


def check_known(factory: str) -> None:
    """Checks, before the dimension of the vectors is known, that an index has some dimension.

    Raises: InvalidRequest: FAISS does not know the factory string.
    """
    problem: InvalidRequest | None = None
    # Parts such as PQ16 need a dimension that their number divides.
    for dim in ("64", *re.findall("[1-9][0-9]{0,3}", factory)) if factory != AUTO else ():
        try:
            _new_index(factory, int(dim))
            return
        except InvalidRequest as error:
            problem = problem or error
    if problem is not None:
        raise problem


def check_factory(factory: str, dim: int, shard_sizes: Sequence[int]) -> None:
    """Checks before hours of embedding that the index can be built.

    Args:
        factory: FAISS factory string.
        dim: Dimension of the vectors.
        shard_sizes: Number of vectors in each shard.
    Raises: InvalidRequest: FAISS does not know the string, it does not support the dimension, or a
        shard has too few vectors for its lists.
    """
    empty = _new_index(factory, dim)
    if _INT8_CODEC in factory and _int8_graph(empty) is None:
        raise InvalidRequest(
            f"index {factory!r} stores integers, which cannot give scores; use "
            f"HNSW32,{_INT8_CODEC},Refine(SQfp16)",
            field="index",
        )
    lists = find_index(empty, _faiss.IndexIVF)
    if lists is None:
        return
    for shard, vectors in enumerate(shard_sizes):
        if 0 < vectors < lists.nlist:
            raise InvalidRequest(
                f"index {factory!r} needs at least {lists.nlist:,} vectors per shard to train its "
                f"{lists.nlist:,} lists, shard {shard} has {vectors:,}; use fewer lists or shards, "
                "or --index auto",
                field="index",
            )


def build_index(
    factory: str,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    options: IndexOptions,
    *,
    shard: int,
    seed: int,
    advance: Advance,
    trained: Any = None,
) -> tuple[Any, SearchDefaults]:
    """Builds the index of one shard in memory.

    Args:
        factory: FAISS factory string.
        vectors: (n, d) float32 of the whole collection, mapped from disk; read in blocks.
        rows: (m,) int64 rows of the shard, in the order of their positions 0..m-1.
        options: Widths and threads.
        shard: Number of the shard, for errors.
        seed: Seed of the training sample.
        advance: Called with the number of vectors added.
        trained: Result of `empty_index`, trained elsewhere; None trains one here.
    Raises: InvalidRequest: a bad factory string, or too few vectors to train it.
    """
    use_threads(options)
    index = empty_index(factory, vectors.shape[1], options) if trained is None else trained
    add = index.add
    int8 = _int8_graph(index) is not None
    if len(rows) and (int8 or not index.is_trained):
        sample = training_sample(index, vectors, rows, seed)
        _train(index, factory, sample, len(rows), shard)
        if int8:
            add = partial(_add_int8, index, int8_scale(sample))
    for first in range(0, len(rows), _BLOCK_ROWS):
        block = rows[first : first + _BLOCK_ROWS]
        try:
            add(np.ascontiguousarray(vectors[block]))
        except RuntimeError as error:
            raise InvalidRequest(
                f"index {factory!r} cannot take vectors: {_faiss_reason(error)}; use another "
                "factory string (ids are assigned by position, so IDMap is not needed)",
                field="index",
            ) from error
        advance(len(block))
    return index, search_defaults(index, options)


def use_threads(options: IndexOptions) -> None:
    """Sets the threads of faiss for the calling thread only, not for searches in others."""
    _faiss.omp_set_num_threads(options.threads or len(os.sched_getaffinity(0)))


def empty_index(factory: str, dim: int, options: IndexOptions) -> Any:
    """Returns an index with its widths, before training.

    Raises: InvalidRequest: a bad factory string.
    """
    index = _new_index(factory, dim)
    graph = find_index(index, _faiss.IndexHNSW)
    if graph is not None:
        graph.hnsw.efConstruction = options.ef_construction
        graph.hnsw.efSearch = options.ef_search
    if isinstance(_faiss.downcast_index(index), _faiss.IndexRefine):
        _faiss.downcast_index(index).k_factor = options.refine_factor or _refine_factor(index)
    return index


def gpu_work(factory: str, dim: int) -> str:
    """Returns what a GPU can do for an index: "lists", "graph", or nothing, which is empty.

    It can train lists, whatever they hold. It can build a graph over vectors that need no training:
    HNSW32,Flat, HNSW32,SQfp16 and HNSW32,SQbf16, but no graph in front of a refine stage.
    """
    index = _new_index(factory, dim)
    lists = find_index(index, _faiss.IndexIVF)
    if lists is not None:
        # Other quantisers than flat ones and graphs train by themselves. The number is a char.
        return "" if ord(lists.quantizer_trains_alone) == 1 else "lists"
    graph = isinstance(_faiss.downcast_index(index), _faiss.IndexHNSW)
    return "graph" if graph and index.is_trained else ""


def expected_bytes(index: Any, vectors: int, lists: int = 0) -> int:
    """Returns the expected file size of an index with a number of vectors; empties the index.

    Args:
        index: Trained, with some vectors.
        vectors: Expected number of vectors.
        lists: Expected number of lists of an IVF index; 0 keeps its number.
    """
    now, size = index.ntotal, _written_bytes(index)
    index.reset()
    empty = _written_bytes(index)
    inverted = find_index(index, _faiss.IndexIVF)
    grown = (lists or inverted.nlist) / inverted.nlist if inverted is not None else 1.0
    return int(empty * grown + (size - empty) / max(1, now) * vectors)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits searches of the calling thread to a single thread during the block."""
    before = _faiss.omp_get_max_threads()
    _faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        _faiss.omp_set_num_threads(before)


def write_index(index: Any, path: Path) -> None:
    """Writes an index file.

    Raises: OSError: no space, no permission.
    """
    failed: list[OSError] = []

    def write(data: bytes) -> None:
        try:
            stream.write(data)
        except OSError as error:
            failed.append(error)
            raise

    try:
        # FAISS's own writer ignores that a file cannot be closed: without space for the last few
        # kilobytes, the index would lack them.
        with path.open("wb") as stream:
            _faiss.write_index(index, _faiss.PyCallbackIOWriter(write))
    except BaseException as error:
        path.unlink(missing_ok=True)
        if failed:
            # FAISS replaces the error.
            raise failed[0] from error
        raise


def search_index(
    index: Any, queries: NDArray[np.float32], k: int, defaults: SearchDefaults
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Searches an index with its default widths.

    Returns: (n, k) int64 positions, best first, padded with -1; (n, k) float32 scores.
    """
    factors = np.ones((len(queries), 1), np.float32)
    if _int8_graph(index) is not None:
        queries, factors = scale_queries(queries)
    params = _params(index, defaults)
    scores, positions = index.search(np.ascontiguousarray(queries), k, params=params)
    return positions, scores / factors


def _written_bytes(index: Any) -> int:
    writer = _faiss.VectorIOWriter()
    _faiss.write_index(index, writer)
    return int(writer.data.size())


def _new_index(factory: str, dim: int) -> Any:
    try:
        return _faiss.index_factory(dim, factory, _faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InvalidRequest(
            f"index factory {factory!r} cannot be built for dim {dim} and inner product: "
            f"{_faiss_reason(error)}; use auto, Flat, HNSW32,Flat, IVF1024,SQ8 or another FAISS "
            "string",
            field="index",
        ) from error


def _faiss_reason(error: RuntimeError) -> str:
    """Returns the message of FAISS without its C++ function and line."""
    return _FAISS_PREFIX.sub("", str(error)).partition("\n")[0]


def find_index(index: Any, kind: type) -> Any:
    """Returns the index of a type inside wrappers (pre-transform, refine); None if absent."""
    index = _faiss.downcast_index(index)
    if isinstance(index, kind):
        return index
    if isinstance(index, _faiss.IndexPreTransform):
        return find_index(index.index, kind)
    if isinstance(index, _faiss.IndexRefine):
        return find_index(index.base_index, kind)
    return None


def _int8_graph(index: Any) -> Any:
    """Returns the graph that ranks by integers for a refine stage; None if there is none."""
    index = _faiss.downcast_index(index)
    if not isinstance(index, _faiss.IndexRefine):
        return None
    graph = _faiss.downcast_index(index.base_index)
    if not isinstance(graph, _faiss.IndexHNSWSQ):
        return None
    quantiser = _faiss.downcast_index(graph.storage).sq
    return graph if quantiser.qtype == _faiss.ScalarQuantizer.QT_8bit_direct_signed else None


def _add_int8(index: Any, scale: float, block: NDArray[np.float32]) -> None:
    """Adds integers to the graph and the original vectors to the refine stage."""
    index = _faiss.downcast_index(index)
    _int8_graph(index).add(quantize(block, scale))
    refine = _faiss.downcast_index(index.refine_index)
    refine.add(block)
    index.ntotal = refine.ntotal


def _refine_factor(index: Any) -> float:
    codes = _faiss.downcast_index(_faiss.downcast_index(index).base_index)
    if isinstance(codes, _faiss.IndexPreTransform):
        codes = _faiss.downcast_index(codes.index)
    if isinstance(codes, _faiss.IndexHNSW):
        codes = _faiss.downcast_index(codes.storage)
    bits = 8.0 * codes.code_size / codes.d
    return next(factor for least, factor in _REFINE_FACTORS if bits >= least)


def training_sample(
    index: Any, vectors: NDArray[np.float32], rows: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """Returns at most as many vectors as the training can use."""
    lists = find_index(index, _faiss.IndexIVF)
    nlist = lists.nlist if lists is not None else 0
    limit = max(_TRAIN_ROWS, nlist * _POINTS_PER_LIST)
    if len(rows) > limit:
        chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
        rows = rows[np.sort(chosen)]
    return np.ascontiguousarray(vectors[rows])


def _train(index: Any, factory: str, sample: NDArray[np.float32], vectors: int, shard: int) -> None:
    if index.is_trained:
        return
    try:
        index.train(sample)
    except RuntimeError as error:
        raise InvalidRequest(
            f"index {factory!r} cannot be trained on the {vectors:,} vectors of shard {shard}: "
            f"{_faiss_reason(error)}; use a simpler index, fewer shards, or --index auto",
            field="index",
        ) from error


def search_defaults(index: Any, options: IndexOptions) -> SearchDefaults:
    """Returns the default widths of an index."""
    lists = find_index(index, _faiss.IndexIVF)
    if lists is not None:
        nprobe = options.nprobe or min(lists.nlist, max(8, lists.nlist // 16))
        return SearchDefaults(0, nprobe)
    graph = find_index(index, _faiss.IndexHNSW)
    return SearchDefaults(options.ef_search if graph is not None else 0, 0)


def _params(index: Any, defaults: SearchDefaults) -> Any:
    """Returns search parameters for an index and its wrappers; None if it has no parameters."""
    index = _faiss.downcast_index(index)
    if isinstance(index, _faiss.IndexPreTransform):
        inner = _params(index.index, defaults)
        return inner and _faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, _faiss.IndexRefine):
        inner = _params(index.base_index, defaults)
        return _faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, _faiss.IndexIVF):
        return _faiss.SearchParametersIVF(nprobe=defaults.nprobe)
    if isinstance(index, _faiss.IndexHNSW):
        return _faiss.SearchParametersHNSW(efSearch=defaults.ef_search)
    return None
