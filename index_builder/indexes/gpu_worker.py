"""The worker that trains and builds indexes on a GPU; see `BuildDevice`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index_builder.execution.gpu_memory import check_memory
from index_builder.indexes.faiss_writer import (
    empty_index,
    find_index,
    training_sample,
    use_threads,
    write_index,
)
from index_builder.options.build_options import IndexOptions
from nearline.workers.process import Message, serve_calls

_BLOCK_ROWS = 16_384
# The stubs of faiss have no classes for GPUs.
_faiss: Any = faiss


def count_gpus(call: Message) -> Message:
    """Returns the number of GPUs that FAISS can use, as `gpus`."""
    return Message({"gpus": _faiss.get_num_gpus()})


def train_lists(call: Message) -> Message:
    """Trains an index with inverted lists, its k-means on the GPU; adds no vectors.

    Args:
        call: Values: `factory`; `vectors`, the file of the collection's vectors, and its `shape`;
            `options`, the fields of `IndexOptions`; `seed`; and `target`, the file to write.
            Arrays: the rows of the shard.
    Raises: GpuFailed: the GPU has too little memory. RuntimeError: FAISS fails.
    """
    vectors, rows, options = _inputs(call)
    index = empty_index(call.values["factory"], vectors.shape[1], options)
    lists = find_index(index, _faiss.IndexIVF)
    check_memory(4 * lists.nlist * lists.d)
    resources = _faiss.StandardGpuResources()
    # Centroids have unit length, so distances order them as inner products do. FAISS refers to the
    # index without owning it, so it has a name here.
    clustering = _faiss.index_cpu_to_gpu(resources, 0, _faiss.IndexFlatL2(lists.d))
    lists.clustering_index = clustering
    index.train(training_sample(index, vectors, rows, call.values["seed"]))
    lists.clustering_index = None
    write_index(index, Path(call.values["target"]))
    return Message({})


def build_graph(call: Message) -> Message:
    """Builds the graph on the GPU, by CAGRA, and its upper levels on the CPU; see `train_lists`.

    The written index has the type that the CPU would build. CAGRA's own type would let searches
    start at random vectors, or needs a class that readers do not expect; see ADR 41.
    """
    vectors, rows, options = _inputs(call)
    index = empty_index(call.values["factory"], vectors.shape[1], options)
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
    write_index(index, Path(call.values["target"]))
    return Message({})


def _inputs(call: Message) -> tuple[NDArray[np.float32], NDArray[np.int64], IndexOptions]:
    options = IndexOptions(**call.values["options"])
    use_threads(options)
    path, shape = call.values["vectors"], tuple(call.values["shape"])
    vectors: NDArray[np.float32] = np.memmap(path, np.dtype("<f4"), "r", shape=shape)
    return vectors, call.arrays[0], options


HANDLERS = {"count": count_gpus, "lists": train_lists, "graph": build_graph}

if __name__ == "__main__":
    serve_calls(HANDLERS)
