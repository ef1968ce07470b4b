"""FAISS in the process of the callers, without a server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.dataset import Condition, PeerDataset
from benchmarks.peers.snapshot import dense_index
from benchmarks.peers.system import PeerClient, Place, System


class FaissClient(PeerClient):
    """The index that Nearline serves, searched by the calling thread."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        import faiss

        super().__init__(address, dataset)
        self._faiss: Any = faiss
        self._index = faiss.read_index(address)
        self._thread = threading.local()

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        if not hasattr(self._thread, "ready"):
            # The number is a setting of each thread.
            self._faiss.omp_set_num_threads(1)
            self._thread.ready = True
        params = self._faiss.SearchParametersHNSW(efSearch=width)
        _, rows = self._index.search(vector[None], self.dataset.k, params=params)
        found: list[int] = rows[0].tolist()
        return found


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    yield str(dense_index(place.dataset))


FAISS = System(
    name="faiss",
    label="FAISS in process (HNSW32)",
    client=FaissClient,
    serve=_serve,
    writes=False,
    filters=False,
    shared_snapshot=True,
)
