"""Holds copies of FAISS indexes on one GPU: python -m retrieval.index.gpu.faiss_worker NUMBER.

For indexes whose vectors do not fit as float16, see `GpuClone`. FAISS ends the process at any error
of CUDA.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from nearline.workers.process import Handler, Message, serve_calls
from retrieval.index.gpu.channels import HeldData, Refused
from retrieval.index.gpu.device_data import TEMPORARY_BYTES
from retrieval.index.vectors.faiss_index import read_index
from retrieval.index.vectors.faiss_layers import layers_of

# The stubs of faiss lack its classes for GPUs.
_faiss: Any = faiss
# Candidates that CAGRA keeps during a search, per requested row.
_CAGRA_WIDTH = 2


class FaissWorker:
    """The functions of the process.

    Args:
        number: Number of the GPU.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        # With the parameters of their searches, which take a number of rows.
        self._indexes: HeldData[tuple[Any, Callable[[int], Any]]] = HeldData()

    def handlers(self) -> dict[str, Handler]:
        """Returns the functions by name."""
        held = self._indexes
        functions = (self.ready, self.load, self.search, held.keep, held.drop)
        return {function.__name__: function for function in functions}

    def ready(self, call: Message) -> Message:
        """Checks that FAISS can use the GPU."""
        self.check()
        return Message({})

    def load(self, call: Message) -> Message:
        """Copies an index file to the GPU, by key; a refine stage stays on the CPU."""
        # Not mapped: not every copy can be made of lists on disk.
        index = read_index(Path(call.values["path"]))
        layers = layers_of(faiss.downcast_index(index))
        lists = isinstance(layers[-1], faiss.IndexIVF)
        outer = next(one for one in layers if not isinstance(one, faiss.IndexRefine))
        params = partial(_list_params, call.values["nprobe"]) if lists else _graph_params
        try:
            copy = self.copy(outer)
            # The first search on a GPU loads libraries, which takes seconds.
            _search(copy, np.zeros((1, outer.d), np.float32), 1, params(1))
            self._indexes.by_key[call.values["key"]] = copy, params
        except RuntimeError as error:
            # FAISS ends the process at errors of CUDA: it has no such index, or no memory for it.
            return Message({"refusal": str(error).strip().splitlines()[-1]})
        return Message({"refusal": ""})

    def search(self, call: Message) -> Message:
        """Returns rows and scores of queries, (n, dim) float32."""
        (queries,) = call.arrays
        k = call.values["k"]
        index, params = self._indexes.searched(call)
        try:
            scores, rows = _search(index, queries, k, params(k))
        except RuntimeError as error:
            # As above: the device is well, but does not answer this search.
            raise Refused(str(error).strip().splitlines()[-1]) from error
        return Message({}, [rows, scores])

    def check(self) -> None:
        """Checks that FAISS can use the GPU.

        Raises: RuntimeError: it cannot; says why.
        """
        if not hasattr(_faiss, "StandardGpuResources"):
            raise RuntimeError(
                "this FAISS is built for CPUs; install nearline-server[standard-gpu] in a new "
                "environment"
            )
        if self._number >= _faiss.get_num_gpus():
            raise RuntimeError(f"FAISS finds {_faiss.get_num_gpus()} GPUs")

    def copy(self, index: Any) -> Any:
        """Returns a copy of an index on the GPU."""
        # Of its own: resources are for one thread, and searches of other indexes go on. The copy
        # keeps them alive.
        resources = _faiss.StandardGpuResources()
        resources.setTempMemory(TEMPORARY_BYTES)
        options = _faiss.GpuClonerOptions()
        # Tables of IVF-PQ in float16 fit into shared memory at any number of bytes per vector.
        options.useFloat16 = True
        return _faiss.index_cpu_to_gpu(resources, self._number, index, options)


def _list_params(nprobe: int, k: int) -> Any:
    return _faiss.SearchParametersIVF(nprobe=nprobe)


def _graph_params(k: int) -> Any:
    return _faiss.SearchParametersCagra(itopk_size=_CAGRA_WIDTH * k)


def _search(index: Any, queries: NDArray[np.float32], k: int, params: Any) -> tuple[Any, Any]:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        # Transformations stay on the CPU, and the index behind them has other parameters.
        chain: Any = index.chain
        for number in range(chain.size()):
            queries = faiss.downcast_VectorTransform(chain.at(number)).apply(queries)
        return _search(index.index, np.ascontiguousarray(queries), k, params)
    found: tuple[Any, Any] = index.search(queries, k, params=params)
    return found


if __name__ == "__main__":
    serve_calls(FaissWorker(int(sys.argv[1])).handlers())
