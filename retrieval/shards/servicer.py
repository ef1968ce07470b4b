"""The gRPC servicer of shards: converts messages to records and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, cast

import grpc

from nearline import wire
from nearline.access.rights import OLD_SHARD_SERVICE
from nearline.calls.guard import Context, Handler, time_left_s
from nearline.internal.v1 import shard_pb2, shard_pb2_grpc
from nearline.serving import Registration
from nearline.tracing.spans import stage
from retrieval.protocols.candidates import HistoryRequest
from retrieval.protocols.shard import CountRequest, ItemsRequest, ScanRequest, SuggestRequest
from retrieval.protocols.watermark import decode_watermark
from retrieval.shards import candidates_codec, codec, validation
from retrieval.shards.shard_host import ShardHost
from retrieval.snapshots.memory import memory_limits

_SERVICE: Final = "nearline.internal.v1.ShardService"


def registrations(servicer: ShardServicer) -> Sequence[Registration]:
    """Returns the service for a server, also under the name that it had until release 0.2.

    Routers of that release call shard servers of this one while both are being upgraded.
    """

    def add(server: grpc.aio.Server) -> None:
        shard_pb2_grpc.add_ShardServiceServicer_to_server(servicer, server)

    def add_old(server: grpc.aio.Server) -> None:
        add(cast(grpc.aio.Server, _OldName(server)))

    return [Registration(_SERVICE, add), Registration(OLD_SHARD_SERVICE, add_old)]


class _OldName:
    """Takes the place of a server while a servicer is added, and gives it the old name."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: generated code registers each service twice, the second time by name."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Adds the methods of the service."""
        self._server.add_registered_method_handlers(OLD_SHARD_SERVICE, dict(method_handlers))


class ShardServicer(shard_pb2_grpc.ShardServiceServicer):
    """Serves the shards of this process.

    Args:
        host: Holds the shards; empty until the first snapshot is loaded.
    """

    def __init__(self, host: ShardHost) -> None:
        self._host = host

    async def SearchShard(
        self, request: shard_pb2.SearchShardRequest, context: Context
    ) -> shard_pb2.SearchShardResponse:
        """Searches one shard."""
        start = time.perf_counter()
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            loaded = shards[request.shard]
            queries = codec.queries_from_proto(request, loaded.snapshot.manifest.dim)
            options = codec.options_from_proto(request.options)
            validation.check_search(queries, options)
            with stage("index search"):
                results = await loaded.shard.search(
                    request.snapshot_id, queries, options, _deadline(context)
                )
            response = codec.hits_to_proto(results)
            wire.set_duration(response.elapsed, time.perf_counter() - start)
            return response

    async def FetchItems(
        self, request: shard_pb2.FetchItemsRequest, context: Context
    ) -> shard_pb2.FetchItemsResponse:
        """Reads items of one shard."""
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            loaded = shards[request.shard]
            wanted = ItemsRequest(
                request.ids,
                wire.payload_from_proto(request.payload),
                request.chunks,
                wire.filter_of(request),
                decode_watermark(request.min_watermark),
                codec.highlight_from_proto(request),
            )
            validation.check_fetch(wanted)
            fetched = await loaded.shard.fetch(request.snapshot_id, wanted, _deadline(context))
            return codec.fetched_items_to_proto(fetched)

    async def ScanItems(
        self, request: shard_pb2.ScanItemsRequest, context: Context
    ) -> shard_pb2.ScanItemsResponse:
        """Lists items of one shard."""
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            loaded = shards[request.shard]
            wanted = ScanRequest(
                request.after_id,
                request.limit,
                wire.filter_of(request),
                wire.payload_from_proto(request.payload),
                decode_watermark(request.min_watermark),
            )
            validation.check_scan(wanted)
            fetched = await loaded.shard.scan(request.snapshot_id, wanted, _deadline(context))
            return codec.scanned_items_to_proto(fetched)

    async def CountShard(
        self, request: shard_pb2.CountShardRequest, context: Context
    ) -> shard_pb2.CountShardResponse:
        """Counts items of one shard."""
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            loaded = shards[request.shard]
            wanted = CountRequest(
                wire.filter_of(request), request.fields, decode_watermark(request.min_watermark)
            )
            validation.check_count(wanted)
            counts = await loaded.shard.count(request.snapshot_id, wanted, _deadline(context))
            return codec.counts_to_proto(counts, request.fields)

    async def SuggestShard(
        self, request: shard_pb2.SuggestShardRequest, context: Context
    ) -> shard_pb2.SuggestShardResponse:
        """Completes a title of one shard."""
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            loaded = shards[request.shard]
            wanted = SuggestRequest(
                request.text,
                request.limit,
                wire.filter_of(request),
                decode_watermark(request.min_watermark),
            )
            validation.check_suggest(wanted)
            found = await loaded.shard.suggest(request.snapshot_id, wanted, _deadline(context))
            return codec.suggestions_to_proto(found)

    async def FindCandidates(
        self, request: shard_pb2.FindCandidatesRequest, context: Context
    ) -> shard_pb2.FindCandidatesResponse:
        """Finds candidates in one shard."""
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            wanted = candidates_codec.request_from_proto(request)
            for number in request.also:
                # Raises, as for the first shard.
                with self._host.shards(request.collection, request.snapshot_id, number):
                    pass
            found = await shards[request.shard].shard.candidates(
                request.snapshot_id, wanted, _deadline(context), request.also
            )
            return candidates_codec.candidates_to_proto(found)

    async def ReadHistory(
        self, request: shard_pb2.ReadHistoryRequest, context: Context
    ) -> shard_pb2.ReadHistoryResponse:
        """Reads the history of a user of one shard."""
        with self._host.shards(request.collection, request.snapshot_id, request.shard) as shards:
            loaded = shards[request.shard]
            validation.check_history(request, len(loaded.snapshot.manifest.shards))
            wanted = HistoryRequest(request.user_id)
            found = await loaded.shard.history(request.snapshot_id, wanted, _deadline(context))
            return candidates_codec.history_to_proto(found)

    async def GetStatus(
        self, request: shard_pb2.GetStatusRequest, context: Context
    ) -> shard_pb2.GetStatusResponse:
        """Returns the loaded shards."""
        response = shard_pb2.GetStatusResponse()
        for limit in memory_limits():
            response.memory.add(free_bytes=limit.free, total_bytes=limit.total)
        for loaded in self._host:
            message = response.shards.add(
                collection=loaded.snapshot.collection,
                snapshot_id=loaded.snapshot.snapshot_id,
                shard=loaded.number,
                ready=True,
                vectors=loaded.shard.chunks,
            )
            progress = self._host.progress(loaded)
            if progress is not None:
                codec.fill_progress(message, progress)
        return response

    async def LoadSnapshot(
        self, request: shard_pb2.LoadSnapshotRequest, context: Context
    ) -> shard_pb2.LoadSnapshotResponse:
        """Loads a snapshot, or waits for the running load."""
        start = time.perf_counter()
        await self._host.load(request.collection, request.snapshot_id)
        response = shard_pb2.LoadSnapshotResponse()
        wire.set_duration(response.elapsed, time.perf_counter() - start)
        return response

    async def UnloadSnapshot(
        self, request: shard_pb2.UnloadSnapshotRequest, context: Context
    ) -> shard_pb2.UnloadSnapshotResponse:
        """Releases a snapshot as soon as it is no longer needed."""
        await self._host.unload(request.collection, request.snapshot_id)
        return shard_pb2.UnloadSnapshotResponse()


def _deadline(context: Context) -> float | None:
    left = time_left_s(context)
    return None if left is None else asyncio.get_running_loop().time() + left
