"""The process that trains and builds indexes on a GPU: `python -m …gpu_worker REQUEST PARENT`.

It writes one file, `target`. Whatever goes wrong ends it, with the reason as its last line; see
`BuildDevice`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index_builder.execution.gpu_memory import check_memory, end_with
from index_builder.indexes.faiss_writer import (
    empty_index,
    find_index,
    training_sample,
    use_threads,
    write_index,
)
from index_builder.options.build_options import IndexOptions

_BLOCK_ROWS = 16_384
# The stubs of faiss have no classes for GPUs.
_faiss: Any = faiss


def main(request: Mapping[str, Any], parent: int) -> None:
    """Does the work of a request."""
    end_with(parent)
    works: dict[str, Callable[[Mapping[str, Any]], None]] = {
        "count": _count_gpus,
        "lists": _train_lists,
        "graph": _build_graph,
    }
    works[request["work"]](request)


def _count_gpus(request: Mapping[str, Any]) -> None:
    Path(request["target"]).write_text(str(_faiss.get_num_gpus()))


def _train_lists(request: Mapping[str, Any]) -> None:
    """Trains an index with inverted lists, its k-means on the GPU; adds no vectors."""
    vectors, rows, options = _inputs(request)
    index = empty_index(request["factory"], vectors.shape[1], options)
    lists = find_index(index, _faiss.IndexIVF)
    check_memory(4 * lists.nlist * lists.d)
    resources = _faiss.StandardGpuResources()
    # Centroids have unit length, so distances order them as inner products do. FAISS refers to the
    # index without owning it, so it has a name here.
    clustering = _faiss.index_cpu_to_gpu(resources, 0, _faiss.IndexFlatL2(lists.d))
    lists.clustering_index = clustering
    index.train(training_sample(index, vectors, rows, request["seed"]))
    lists.clustering_index = None
    write_index(index, Path(request["target"]))


def _build_graph(request: Mapping[str, Any]) -> None:
    """Builds the graph on the GPU, by CAGRA, and its upper levels on the CPU.

    The written index has the type that the CPU would build. CAGRA's own type would let searches
    start at random vectors, or needs a class that readers do not expect; see ADR 41.
    """
    vectors, rows, options = _inputs(request)
    index = empty_index(request["factory"], vectors.shape[1], options)
    graph = find_index(index, _faiss.IndexHNSW)
    degree = graph.hnsw.nb_neighbors(0)
    # CAGRA prunes a graph with twice the neighbours.
    graph_bytes = 4 * (degree + 2 * degree)
    check_memory(len(rows) * (4 * graph.d + graph_bytes))
    config = _faiss.GpuIndexCagraConfig()
    config.graph_degree, config.intermediate_graph_degree = degree, 2 * degree
    resources = _faiss.StandardGpuResources()
    cagra = _faiss.GpuIndexCagra(resources, graph.d, _faiss.METRIC_INNER_PRODUCT, config)
    data = np.ascontiguousarray(vectors[rows])
    cagra.train(data)
    copied = _faiss.IndexHNSWCagra(graph.d, degree // 2, _faiss.METRIC_INNER_PRODUCT)
    copied.hnsw.efConstruction = options.ef_construction
    cagra.copyTo(copied)
    graph.hnsw = copied.hnsw
    graph.hnsw.efSearch = options.ef_search
    # Each of them holds all vectors.
    del cagra, copied, data
    for first in range(0, len(rows), _BLOCK_ROWS):
        graph.storage.add(np.ascontiguousarray(vectors[rows[first : first + _BLOCK_ROWS]]))
    graph.ntotal = len(rows)
    write_index(index, Path(request["target"]))


def _inputs(
    request: Mapping[str, Any],
) -> tuple[NDArray[np.float32], NDArray[np.int64], IndexOptions]:
    options = IndexOptions(**request["options"])
    use_threads(options)
    shape = tuple(request["shape"])
    vectors: NDArray[np.float32] = np.memmap(request["vectors"], np.dtype("<f4"), "r", shape=shape)
    return vectors, np.load(request["rows"]), options


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
