"""Client of a shard server over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nearline import wire
from nearline.channel import ServiceChannel
from nearline.errors import Unsupported
from nearline.internal.v1 import shard_pb2, shard_pb2_grpc
from retrieval.live.progress import ShardProgress
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
)
from retrieval.protocols.shard import (
    CountRequest,
    ItemsRequest,
    ScanRequest,
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
    ShardSuggestions,
    SuggestRequest,
)
from retrieval.shards import candidates_codec, codec
from retrieval.shards.codec import progress_from_proto
from retrieval.snapshots.memory import MemoryLimit

# Default timeout of a call without a deadline: a server that hangs must not block a slot forever.
_DEFAULT_TIMEOUT_S = 10.0
# Large shards take minutes to read; the router gives up earlier if the server goes away.
_LOAD_TIMEOUT_S = 3_600.0


class ShardKey(NamedTuple):
    """Identifies one shard of one snapshot."""

    collection: str
    snapshot_id: str
    shard: int


class ShardClient(ServiceChannel):
    """A channel to a shard server, which may hold several shards.

    Every method raises the errors of the server; NotReady if the server cannot be reached.

    Args:
        address: "host:port" of the server, or a target like "dns:///name:port".

    memory: The memory of the server, as of its last status.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.memory: Sequence[MemoryLimit] = ()
        self._stub = shard_pb2_grpc.ShardServiceStub(self.grpc_channel)

    async def status(self, timeout_s: float) -> Mapping[ShardKey, ShardProgress | None]:
        """Returns the ready shards of the server, with the progress of live changes in each.

        The progress is None if the server follows no change log.
        """
        request = shard_pb2.GetStatusRequest()
        reply = await self.call(lambda: self._stub.GetStatus(request, timeout=timeout_s), request)
        self.memory = [MemoryLimit(one.free_bytes, one.total_bytes) for one in reply.memory]
        return {
            ShardKey(one.collection, one.snapshot_id, one.shard): progress_from_proto(one)
            for one in reply.shards
            if one.ready
        }

    async def load(self, collection: str, snapshot_id: str) -> None:
        """Makes the server load its shards of a snapshot; returns when they are ready."""
        request = shard_pb2.LoadSnapshotRequest(collection=collection, snapshot_id=snapshot_id)
        await self.call(lambda: self._stub.LoadSnapshot(request, timeout=_LOAD_TIMEOUT_S), request)

    async def search(
        self, key: ShardKey, queries: ShardQueries, options: ShardOptions, deadline: float | None
    ) -> Sequence[ShardHits]:
        """Searches; see `Shard.search`."""
        request = shard_pb2.SearchShardRequest(
            **key._asdict(),
            options=codec.options_to_proto(options),
        )
        codec.fill_queries(request, queries)
        reply = await self.call(
            lambda: self._stub.SearchShard(request, timeout=time_left_s(deadline)), request
        )
        return codec.hits_from_proto(reply)

    async def fetch(
        self, key: ShardKey, request: ItemsRequest, deadline: float | None
    ) -> ShardItems:
        """Reads items; see `Shard.fetch`."""
        message = shard_pb2.FetchItemsRequest(
            **key._asdict(),
            ids=request.ids,
            payload=wire.payload_to_proto(request.payload),
            chunks=request.chunks,
            filter=None if request.filter is None else wire.filter_to_proto(request.filter),
            min_watermark=codec.watermark_to_bytes(request.min_watermark),
            highlight=codec.highlight_to_proto(request.highlight),
        )
        return codec.items_from_proto(
            await self.call(
                lambda: self._stub.FetchItems(message, timeout=time_left_s(deadline)), message
            )
        )

    async def scan(self, key: ShardKey, request: ScanRequest, deadline: float | None) -> ShardItems:
        """Lists items; see `Shard.scan`."""
        message = shard_pb2.ScanItemsRequest(
            **key._asdict(),
            after_id=request.after_id,
            limit=request.limit,
            filter=None if request.filter is None else wire.filter_to_proto(request.filter),
            payload=wire.payload_to_proto(request.payload),
            min_watermark=codec.watermark_to_bytes(request.min_watermark),
        )
        return codec.items_from_proto(
            await self.call(
                lambda: self._stub.ScanItems(message, timeout=time_left_s(deadline)), message
            )
        )

    async def count(
        self, key: ShardKey, request: CountRequest, deadline: float | None
    ) -> ShardCounts:
        """Counts items; see `Shard.count`."""
        message = shard_pb2.CountShardRequest(
            **key._asdict(),
            filter=None if request.filter is None else wire.filter_to_proto(request.filter),
            fields=request.fields,
            min_watermark=codec.watermark_to_bytes(request.min_watermark),
        )
        return codec.counts_from_proto(
            await self.call(
                lambda: self._stub.CountShard(message, timeout=time_left_s(deadline)), message
            )
        )

    async def suggest(
        self, key: ShardKey, request: SuggestRequest, deadline: float | None
    ) -> ShardSuggestions:
        """Completes a title; see `Shard.suggest`."""
        message = shard_pb2.SuggestShardRequest(
            **key._asdict(),
            text=request.text,
            limit=request.limit,
            filter=None if request.filter is None else wire.filter_to_proto(request.filter),
            min_watermark=codec.watermark_to_bytes(request.min_watermark),
        )
        return codec.suggestions_from_proto(
            await self.call(
                lambda: self._stub.SuggestShard(message, timeout=time_left_s(deadline)), message
            )
        )

    async def candidates(
        self,
        key: ShardKey,
        request: CandidatesRequest,
        deadline: float | None,
        also: Sequence[int] = (),
    ) -> ShardCandidates:
        """Finds candidates; see `Shard.candidates`."""
        message = candidates_codec.request_to_proto(request, *key, also)
        with self._explain_old_server():
            reply = await self.call(
                lambda: self._stub.FindCandidates(message, timeout=time_left_s(deadline)), message
            )
        return candidates_codec.candidates_from_proto(reply)

    async def history(
        self, key: ShardKey, request: HistoryRequest, deadline: float | None
    ) -> StoredHistory:
        """Reads the history of a user; see `Shard.history`."""
        message = shard_pb2.ReadHistoryRequest(**key._asdict(), user_id=request.user_id)
        with self._explain_old_server():
            reply = await self.call(
                lambda: self._stub.ReadHistory(message, timeout=time_left_s(deadline)), message
            )
        return candidates_codec.history_from_proto(reply)

    @contextlib.contextmanager
    def _explain_old_server(self) -> Iterator[None]:
        try:
            yield
        except Unsupported as error:
            if "no method" not in error.message:
                raise
            raise Unsupported(
                f"the shard server at {self.address} is of an older version, which finds no "
                "candidates of lists; upgrade shard servers before routers"
            ) from error


def time_left_s(deadline: float | None) -> float:
    """Returns the timeout of a call with a deadline in loop time, in seconds; always positive."""
    if deadline is None:
        return _DEFAULT_TIMEOUT_S
    return max(1e-3, deadline - asyncio.get_running_loop().time())
