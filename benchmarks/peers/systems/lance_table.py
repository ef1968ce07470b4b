"""LanceDB in the process of the callers, on a folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.client_threads import in_batches
from benchmarks.peers.dataset import ATTRIBUTES, Condition, PeerDataset
from benchmarks.peers.system import PeerClient, Place, System

_TABLE = "items"
_LOAD_BATCH = 5_000
# Twice k rows are scored again with float32. Without, int8 bounds the recall (0.985 on 20,000 rows,
# where two reach 1.0 at a tenth more time, and three no more).
_REFINED = 2
# What other processes write is seen that much later.
_REFRESH = timedelta(seconds=1)


class LanceClient(PeerClient):
    """A table with a graph over vectors of int8, whose candidates are scored again with float32."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        import lancedb

        super().__init__(address, dataset)
        self._store: Any = lancedb.connect(address, read_consistency_interval=_REFRESH)
        self._table: Any = None
        if _TABLE in self._store.table_names():
            self._table = self._store.open_table(_TABLE)

    def load(self) -> None:
        rows = range(len(self.dataset.base))

        def batches() -> Iterator[Any]:
            for part in in_batches(len(rows), _LOAD_BATCH):
                yield self._record_batch(rows[part], self.dataset.base[part])

        schema = self._record_batch([0], self.dataset.base[:1]).schema
        table = self._store.create_table(_TABLE, batches(), schema=schema)
        table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=1)
        table.create_scalar_index("id")
        for name in ATTRIBUTES:
            table.create_scalar_index(name, index_type="BITMAP")
        self._table = table

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        k = self.dataset.k
        # It wants at least as many candidates as it scores again.
        ef = max(width, _REFINED * k)
        search = self._table.search(vector).limit(k).ef(ef).refine_factor(_REFINED)
        if condition:
            search = search.where(f"{condition.attribute} = {condition.value}", prefilter=True)
        columns = ["id", "_distance", *(["text"] if payload else ())]
        found: list[int] = search.select(columns).to_arrow()["id"].to_pylist()
        return found

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        merge = self._table.merge_insert("id")
        merge = merge.when_matched_update_all().when_not_matched_insert_all()
        merge.execute(self._record_batch(rows, vectors))

    def _record_batch(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> Any:
        import pyarrow as pa

        flat = pa.array(np.asarray(vectors).reshape(-1), pa.float32())
        columns = {
            "id": pa.array(rows, pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            "text": pa.array([self.dataset.text(row) for row in rows]),
        }
        attributes = [self.dataset.attributes(row) for row in rows]
        for name in ATTRIBUTES:
            columns[name] = pa.array([values[name] for values in attributes], pa.int32())
        return pa.RecordBatch.from_pydict(columns)


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    yield str(place.folder)


def _missing() -> str:
    return "" if find_spec("lancedb") else "pip: lancedb"


LANCEDB = System(
    name="lancedb",
    label="LanceDB in process (IVF_HNSW_SQ)",
    client=LanceClient,
    serve=_serve,
    missing=_missing,
)
