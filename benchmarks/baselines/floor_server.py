"""The minimal gRPC server over FAISS: the floor that `nearline bench search` compares with.

Same messages, same index file, same number of threads; no validation, payload, sharding, metrics or
batching. It stops when its standard input closes.
Run: python -m benchmarks.baselines.floor_server --index dense.faiss --ids ids.txt
"""

from __future__ import annotations

import argparse
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np

from benchmarks.baselines.baseline_faiss import search_params
from benchmarks.baselines.minimal_server import run_server
from nearline.v1 import retrieval_pb2 as pb, retrieval_pb2_grpc
from retrieval.index.vectors.int8_codec import scale_queries

_faiss: Any = faiss  # The stubs of faiss do not know SearchParametersHNSW.


class FloorServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers Search by vector with ids and scores."""

    def __init__(self, index: Any, ids: list[str], threads: int) -> None:
        self._index = index
        self._ids = ids
        self._pool = ThreadPoolExecutor(
            threads, initializer=_faiss.omp_set_num_threads, initargs=(1,)
        )
        self._refined = isinstance(index, _faiss.IndexRefine)
        self._params: dict[int, Any] = {}

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._find, request)

    def _find(self, request: pb.SearchRequest) -> pb.SearchResponse:
        vector = np.frombuffer(request.query.vector.data, np.float32)[None]
        if self._refined:
            vector, factors = scale_queries(vector)
        params = self._search_params(request.options.ef_search)
        scores, rows = self._index.search(vector, request.options.k, params=params)
        if self._refined:
            scores /= factors
        response = pb.SearchResponse()
        add, ids = response.result.hits.add, self._ids
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True):
            add(id=ids[row], score=score)
        return response

    def _search_params(self, ef: int) -> Any:
        if ef not in self._params:
            self._params[ef] = search_params(self._index, ef)
        return self._params[ef]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index", required=True, help="FAISS index file")
    parser.add_argument("--ids", required=True, help="text file; line r is the id of row r")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with open(options.ids, encoding="utf-8") as lines:
        ids = lines.read().splitlines()
    run_server(FloorServicer(faiss.read_index(options.index), ids, options.threads))


if __name__ == "__main__":
    main()
