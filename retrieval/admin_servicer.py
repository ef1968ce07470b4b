"""AdminService over gRPC, the reading half: snapshots, aliases, and what is served."""

from __future__ import annotations

import asyncio
import itertools

import nearline
from nearline.contract import DEFAULT_COLLECTION
from nearline.errors import InvalidRequest
from nearline.guard import Context
from nearline.snapshot import Store, check_collection
from nearline.v1 import admin_pb2, admin_pb2_grpc, snapshot_pb2
from retrieval.service import RetrievalService

_PAGE_SIZE = 100
_MAX_PAGE_SIZE = 1_000
_MAX_HISTORY = 1_000


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Answers from the store and from what the router serves.

    Args:
        store: The snapshot store.
        service: The router's domain object.
    """

    def __init__(self, store: Store, service: RetrievalService) -> None:
        self._store = store
        self._service = service

    async def ListSnapshots(
        self, request: admin_pb2.ListSnapshotsRequest, context: Context
    ) -> admin_pb2.ListSnapshotsResponse:
        """Lists manifests, newest first; the token of a page is the last id before it."""
        size = request.page_size or _PAGE_SIZE
        if size > _MAX_PAGE_SIZE:
            raise InvalidRequest(
                f"page_size is {size}; 1..{_MAX_PAGE_SIZE} is allowed", field="page_size"
            )
        collection = check_collection(request.collection or DEFAULT_COLLECTION)

        def read() -> admin_pb2.ListSnapshotsResponse:
            ids = self._store.snapshot_ids(collection)
            if request.page_token:
                ids = [one for one in ids if one < request.page_token]
            elif not ids:
                self._store.alias_in_force(collection)  # Raises NotFound with the remedy.
            page = ids[:size]
            manifests = [_without_files(self._store.manifest(collection, one)) for one in page]
            token = page[-1] if len(ids) > size else ""
            return admin_pb2.ListSnapshotsResponse(snapshots=manifests, next_page_token=token)

        return await asyncio.to_thread(read)

    async def GetSnapshot(
        self, request: admin_pb2.GetSnapshotRequest, context: Context
    ) -> admin_pb2.GetSnapshotResponse:
        """Reads one manifest."""
        collection = request.collection or DEFAULT_COLLECTION

        def read() -> snapshot_pb2.Manifest:
            wanted = request.snapshot_id or self._store.alias_in_force(collection).current
            return self._store.manifest(collection, wanted)

        return admin_pb2.GetSnapshotResponse(snapshot=await asyncio.to_thread(read))

    async def GetAliases(
        self, request: admin_pb2.GetAliasesRequest, context: Context
    ) -> admin_pb2.GetAliasesResponse:
        """Reads the alias record in force and older ones."""
        collection = request.collection or DEFAULT_COLLECTION
        if request.history > _MAX_HISTORY:
            raise InvalidRequest(
                f"history is {request.history}; 0..{_MAX_HISTORY} is allowed", field="history"
            )

        def read() -> admin_pb2.GetAliasesResponse:
            in_force = self._store.alias_in_force(collection)
            records = self._store.alias_records(collection)
            older = itertools.islice(records, 1, 1 + request.history)
            return admin_pb2.GetAliasesResponse(in_force=in_force, history=list(older))

        return await asyncio.to_thread(read)

    async def GetServingStatus(
        self, request: admin_pb2.GetServingStatusRequest, context: Context
    ) -> admin_pb2.GetServingStatusResponse:
        """Tells what is served."""
        collections = []
        for served in self._service.collections:
            collections.append(
                admin_pb2.CollectionStatus(
                    collection=served.name,
                    epoch=served.epoch,
                    snapshot_id=served.snapshot_id,
                    fingerprint=served.fingerprint,
                    documents=served.documents,
                    chunks=served.chunks,
                    shards_total=len(served.shards),
                    shards_ready=await served.ready_shards(),
                )
            )
        return admin_pb2.GetServingStatusResponse(
            collections=collections, nearline_version=nearline.__version__
        )


def _without_files(manifest: snapshot_pb2.Manifest) -> snapshot_pb2.Manifest:
    manifest.ClearField("files")
    return manifest
