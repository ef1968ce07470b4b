"""Nearline: a router with embedded shards or a separate one, and the blocking client."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import AsyncIterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.processes import router_process
from benchmarks.peers.client_threads import in_batches
from benchmarks.peers.dataset import Condition, PeerDataset, row_id
from benchmarks.peers.snapshot import COLLECTION, STORE
from benchmarks.peers.system import PeerClient, Place, System
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.contract import Item, PayloadField, SearchOptions
from nearline_cli.local.processes import redis_process

_PAYLOAD = frozenset({PayloadField.TITLE, PayloadField.TEXT})
_TIMEOUT_S = 60.0


class NearlineClient(PeerClient):
    """`BlockingRetrievalClient`, which asks for ids and scores."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        super().__init__(address, dataset)
        self._client = BlockingRetrievalClient(address)
        self._watermark = b""

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        return self._search(vector, width, condition, payload, b"")

    def search_written(self, vector: NDArray[np.float32], width: int) -> Sequence[int]:
        return self._search(vector, width, None, False, self._watermark)

    def _search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
        min_watermark: bytes,
    ) -> Sequence[int]:
        options = SearchOptions(
            k=self.dataset.k,
            ef_search=width,
            payload=_PAYLOAD if payload else frozenset(),
            filter=f"{condition.attribute} = {condition.value}" if condition else None,
            min_watermark=min_watermark,
        )
        reply = self._client.search(vector, options, collection=COLLECTION)
        return [int(hit.id) for hit in reply.hits]

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        for part in in_batches(len(rows)):
            items = [
                Item(
                    id=row_id(row),
                    text=self.dataset.text(row),
                    attributes=dict(self.dataset.attributes(row)),
                    vector=vector,
                )
                for row, vector in zip(rows[part], vectors[part], strict=True)
            ]
            reply = self._client.upsert_items(items, collection=COLLECTION, timeout_s=_TIMEOUT_S)
            self._watermark = reply.watermark

    def close(self) -> None:
        self._client.close()


@contextlib.asynccontextmanager
async def _serve(place: Place, *, shards: int) -> AsyncIterator[str]:
    store = place.dataset / STORE
    async with contextlib.AsyncExitStack() as stack:
        arguments = ["--store", str(store)]
        if place.live:
            # A change log belongs to one store.
            own = place.folder / STORE
            if not own.exists():
                shutil.copytree(store, own)
            url = await stack.enter_async_context(redis_process(place.folder / "redis"))
            arguments = ["--store", str(own), "--redis", url]
        router = await stack.enter_async_context(router_process(arguments, shards))
        yield router.address


EMBEDDED = System(
    name="nearline",
    label="Nearline, embedded shard (HNSW32)",
    client=NearlineClient,
    serve=functools.partial(_serve, shards=0),
    shared_snapshot=True,
)
SEPARATE = System(
    name="nearline-separate",
    label="Nearline, separate shard (HNSW32)",
    client=NearlineClient,
    serve=functools.partial(_serve, shards=1),
    shared_snapshot=True,
)
