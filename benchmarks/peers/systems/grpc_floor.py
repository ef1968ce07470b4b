"""The minimal gRPC server over FAISS, called by its blocking stub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.processes import floor_process
from benchmarks.peers.dataset import Condition, PeerDataset
from benchmarks.peers.snapshot import search_task
from benchmarks.peers.system import PeerClient, Place, System
from nearline.v1 import retrieval_pb2 as pb, retrieval_pb2_grpc
from nearline.vectors import pack


class FloorClient(PeerClient):
    """A blocking stub on one channel."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        super().__init__(address, dataset)
        # The types of the stub know the asyncio API alone.
        channel: Any = grpc.insecure_channel(address)
        self._channel = channel
        self._stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        request = pb.SearchRequest(
            query=pb.Query(vector=pack(vector)),
            options=pb.SearchOptions(k=self.dataset.k, ef_search=width),
        )
        return [int(hit.id) for hit in self._stub.Search(request).result.hits]

    def close(self) -> None:
        self._channel.close()


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    async with floor_process(search_task(place.dataset, len(os.sched_getaffinity(0)))) as server:
        yield server.address


FLOOR = System(
    name="floor",
    label="gRPC + FAISS alone (HNSW32)",
    client=FloorClient,
    serve=_serve,
    writes=False,
    filters=False,
    shared_snapshot=True,
)
