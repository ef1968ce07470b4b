"""A shard in another process, over gRPC."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence

from nearline import wire
from nearline.channel import ServiceChannel
from nearline.contract import Item, PayloadField
from nearline.errors import NearlineError
from nearline.v1 import shard_pb2, shard_pb2_grpc
from retrieval import shard_wire
from retrieval.coalescer import Batch, Coalescer
from retrieval.shard import Queries, ShardHits, ShardOptions

# Applies where the caller set no deadline: a shard that hangs must not hold a slot for ever.
_PATIENCE_S = 10.0
_STATUS_TIMEOUT_S = 1.0
# While this many calls are on their way to one shard, queries wait and share the next call. Two
# keep it busy while an answer travels; more make the calls smaller (four: a tenth slower).
_CALLS_IN_FLIGHT = 2
_MAX_BATCH = 64


class ShardClient(ServiceChannel):
    """A channel to a shard server; it may hold several shards.

    Args:
        address: "host:port" of the server.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.stub = shard_pb2_grpc.ShardServiceStub(self.grpc_channel)

    async def status(self, timeout_s: float) -> shard_pb2.GetStatusResponse:
        """Tells which shards of which snapshots the server holds."""
        request = shard_pb2.GetStatusRequest()
        return await self.call(
            lambda: self.stub.GetStatus(request, timeout=timeout_s, wait_for_ready=True)
        )


class RemoteShard:
    """One shard of a collection on a shard server; a `Shard`.

    Args:
        client: Channel to the server; shared with its other shards, and closed by its owner.
        collection: Collection name.
        number: Shard number.
        observe: Told the size of every batch.
    """

    def __init__(
        self,
        client: ShardClient,
        collection: str,
        number: int,
        *,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._number = number
        self._runners: set[Future[None]] = set()
        self._coalescer: Coalescer[tuple[str, ShardOptions], ShardHits] = Coalescer(
            self._start, slots=_CALLS_IN_FLIGHT, max_batch=_MAX_BATCH, observe=observe
        )

    def search(
        self,
        snapshot_id: str,
        queries: Queries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; see `Shard.search`."""
        return self._coalescer.ask(queries, (snapshot_id, options), deadline)

    async def fetch(
        self,
        snapshot_id: str,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        deadline: float | None = None,
    ) -> Sequence[Item]:
        """Reads items; see `Shard.fetch`."""
        request = shard_pb2.FetchItemsRequest(
            collection=self._collection,
            snapshot_id=snapshot_id,
            shard=self._number,
            ids=ids,
            payload=wire.payload_to_proto(payload),
        )
        reply = await self._client.call(
            lambda: self._client.stub.FetchItems(request, timeout=_time_left_s(deadline))
        )
        return [wire.item_from_proto(item) for item in reply.items]

    async def ready(self, snapshot_id: str) -> bool:
        """Tells whether the server answers and holds that snapshot of the shard."""
        try:
            status = await self._client.status(_STATUS_TIMEOUT_S)
        except NearlineError:
            return False
        key = (self._collection, snapshot_id, self._number)
        return any(s.ready and (s.collection, s.snapshot_id, s.shard) == key for s in status.shards)

    def _start(self) -> None:
        runner = asyncio.ensure_future(self._run())
        # The loop keeps no reference to its tasks.
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)

    async def _run(self) -> None:
        """Sends batches for as long as there are any."""
        while (batch := self._coalescer.take()) is not None:
            try:
                self._coalescer.finish(batch, await self._call(batch))
            except Exception as error:
                self._coalescer.finish(batch, None, error)

    async def _call(self, batch: Batch[tuple[str, ShardOptions], ShardHits]) -> Sequence[ShardHits]:
        snapshot_id, options = batch.options
        request = shard_pb2.SearchShardRequest(
            collection=self._collection,
            snapshot_id=snapshot_id,
            shard=self._number,
            options=shard_wire.options_to_proto(options),
        )
        shard_wire.fill_queries(request, batch.queries)
        reply = await self._client.call(
            lambda: self._client.stub.SearchShard(request, timeout=_time_left_s(batch.deadline))
        )
        return shard_wire.hits_from_proto(reply.results)


def _time_left_s(deadline: float | None) -> float:
    if deadline is None:
        return _PATIENCE_S
    return max(1e-3, deadline - asyncio.get_running_loop().time())
