"""Async client of the admin service."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from nearline import contract as c
from nearline.channel import ServiceChannel
from nearline.clients.arguments import converts_arguments
from nearline.tls import TlsFiles
from nearline.v1 import admin_pb2, admin_pb2_grpc, release_pb2, snapshot_pb2

# Promotion verifies every file of a snapshot: gigabytes take minutes.
_CHECK_TIMEOUT_S = 1800.0


@converts_arguments
class AdminClient(ServiceChannel):
    """Client of the admin service that a router hosts.

    Args:
        address: "host:port" of the router.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(address, token=token, tls=tls)
        self._stub = admin_pb2_grpc.AdminServiceStub(self.grpc_channel)

    async def serving_status(self) -> admin_pb2.GetServingStatusResponse:
        """Returns the collections and snapshots that the router serves."""
        request = admin_pb2.GetServingStatusRequest()
        return await self.send(self._stub.GetServingStatus, request)

    async def snapshots(
        self, collection: str = c.DEFAULT_COLLECTION
    ) -> AsyncGenerator[snapshot_pb2.Manifest, None]:
        """Yields the manifests of a collection, newest first, without their file lists."""
        request = admin_pb2.ListSnapshotsRequest(collection=collection)
        while True:
            page = await self.send(self._stub.ListSnapshots, request)
            for manifest in page.snapshots:
                yield manifest
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def snapshot(
        self, collection: str = c.DEFAULT_COLLECTION, snapshot_id: str = ""
    ) -> snapshot_pb2.Manifest:
        """Returns one manifest; an empty id selects the current snapshot."""
        request = admin_pb2.GetSnapshotRequest(collection=collection, snapshot_id=snapshot_id)
        reply = await self.send(self._stub.GetSnapshot, request)
        return reply.snapshot

    async def aliases(
        self, collection: str = c.DEFAULT_COLLECTION, history: int = 0
    ) -> admin_pb2.GetAliasesResponse:
        """Returns the current alias record and up to `history` older ones."""
        request = admin_pb2.GetAliasesRequest(collection=collection, history=history)
        return await self.send(self._stub.GetAliases, request)

    async def promote(
        self,
        snapshot_id: str,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
        gate: release_pb2.GateVerdict | None = None,
    ) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current after verifying its files; returns the new alias record.

        Raises: Conflict: expected_epoch is set, and the current epoch is a different one.
        """
        request = admin_pb2.PromoteSnapshotRequest(
            collection=collection,
            snapshot_id=snapshot_id,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
            gate=gate,
        )
        reply = await self.send(self._stub.PromoteSnapshot, request, _CHECK_TIMEOUT_S)
        return reply.record

    async def split(
        self,
        canary: str,
        share: float = 0.0,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        rollout: release_pb2.Rollout | None = None,
        gate: release_pb2.GateVerdict | None = None,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Starts a canary trial of a snapshot; an empty id ends the trial.

        Raises: Conflict: see `promote`. NotFound: the snapshot does not exist, or there is no
            trial to end.
        """
        request = admin_pb2.SetTrafficSplitRequest(
            collection=collection,
            canary_snapshot_id=canary,
            canary_share=share,
            rollout=rollout,
            gate=gate,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
        )
        reply = await self.send(self._stub.SetTrafficSplit, request, _CHECK_TIMEOUT_S)
        return reply.record

    async def rollout_status(
        self, collection: str = c.DEFAULT_COLLECTION
    ) -> admin_pb2.GetRolloutStatusResponse:
        """Returns the state of the canary trial on this router."""
        request = admin_pb2.GetRolloutStatusRequest(collection=collection)
        return await self.send(self._stub.GetRolloutStatus, request)

    async def roll_back(
        self,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Makes the previous snapshot current again; see `promote`."""
        request = admin_pb2.RollbackSnapshotRequest(
            collection=collection, expected_epoch=expected_epoch, who=who, why=why
        )
        reply = await self.send(self._stub.RollbackSnapshot, request, _CHECK_TIMEOUT_S)
        return reply.record
