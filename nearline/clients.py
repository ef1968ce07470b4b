"""Async clients of the services; each satisfies the protocol of the object it stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

import grpc

from nearline import contract as c
from nearline import status, wire
from nearline.channel import ServiceChannel
from nearline.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
    snapshot_pb2,
)

# Applies where the caller names none: a call without a deadline can hang for ever.
DEFAULT_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 60.0
# Every file of a snapshot is read before it becomes current: gigabytes take minutes.
_CHECK_TIMEOUT_S = 1800.0
DEFAULT_OPTIONS = c.SearchOptions()
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR}


class EmbeddingClient(ServiceChannel):
    """Client of the embedding service; an `Embedder`.

    Args:
        address: "host:port" of the service.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = embedding_pb2_grpc.EmbeddingServiceStub(self.grpc_channel)

    async def embed(
        self,
        texts: Sequence[str],
        role: c.TextRole = c.TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.Embeddings:
        """Embeds a batch of texts; see `Embedder.embed`. timeout_s: None is 10 s."""
        request = _embed_request(texts, role, dimensions, expected_fingerprint, lane)
        reply = await self.call(lambda: self._stub.Embed(request, timeout=_timeout(timeout_s)))
        return wire.embeddings(reply)

    async def embed_stream(
        self,
        batches: AsyncIterator[Sequence[str]],
        role: c.TextRole = c.TextRole.DOCUMENT,
        *,
        expected_fingerprint: str = "",
    ) -> AsyncIterator[c.Embeddings]:
        """Embeds a stream of batches on the bulk lane; yields one result per batch, in order."""

        async def requests() -> AsyncIterator[embedding_pb2.EmbedStreamRequest]:
            async for texts in batches:
                request = _embed_request(texts, role, None, expected_fingerprint, c.Lane.BULK)
                yield embedding_pb2.EmbedStreamRequest(request=request)

        try:
            async for reply in self._stub.EmbedStream(requests()):
                yield wire.embeddings(reply.response)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error, self.address) from error

    async def info(self) -> c.EmbedderInfo:
        """Gives the service's card."""
        request = embedding_pb2.GetInfoRequest()
        return wire.embedder_info(
            await self.call(lambda: self._stub.GetInfo(request, timeout=DEFAULT_TIMEOUT_S))
        )


class RetrievalClient(ServiceChannel):
    """Client of the retrieval service; a `Retriever`.

    Args:
        address: "host:port" of the service.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = retrieval_pb2_grpc.RetrievalServiceStub(self.grpc_channel)

    async def search(
        self,
        query: c.Query,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for one query; see `Retriever.search`. timeout_s: None is 10 s."""
        request = retrieval_pb2.SearchRequest(
            collection=collection,
            query=wire.query_to_proto(query),
            options=wire.options_to_proto(options),
        )
        return wire.search_reply(
            await self.call(lambda: self._stub.Search(request, timeout=_timeout(timeout_s)))
        )

    async def search_batch(
        self,
        queries: Sequence[c.Query],
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for 1..1024 queries, all from one snapshot."""
        request = retrieval_pb2.SearchBatchRequest(
            collection=collection,
            queries=[wire.query_to_proto(query) for query in queries],
            options=wire.options_to_proto(options),
        )
        return wire.batch_reply(
            await self.call(lambda: self._stub.SearchBatch(request, timeout=_timeout(timeout_s)))
        )

    async def get_items(
        self,
        ids: Sequence[str],
        payload: Iterable[c.PayloadField] = ALL_BUT_VECTOR,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Reads items by id; ids that do not exist are in `ignored_ids`."""
        request = retrieval_pb2.GetItemsRequest(
            collection=collection, ids=ids, payload=wire.payload_to_proto(payload)
        )
        return wire.items_reply(
            await self.call(lambda: self._stub.GetItems(request, timeout=_timeout(timeout_s)))
        )

    async def list_items(
        self,
        *,
        page_size: int = 100,
        page_token: str = "",
        filter: c.Filter | None = None,
        payload: Iterable[c.PayloadField] = (),
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.ItemsPage:
        """Reads a page of items in id order; see `Retriever.list_items`."""
        request = retrieval_pb2.ListItemsRequest(
            collection=collection,
            page_size=page_size,
            page_token=page_token,
            filter=None if filter is None else wire.filter_to_proto(filter),
            payload=wire.payload_to_proto(payload),
        )
        return wire.items_page(
            await self.call(lambda: self._stub.ListItems(request, timeout=_timeout(timeout_s)))
        )

    async def items(
        self,
        filter: c.Filter | None = None,
        payload: Iterable[c.PayloadField] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
    ) -> AsyncIterator[c.Item]:
        """Yields all items that match, in id order, page by page, from one snapshot."""
        wanted = frozenset(payload)
        token = ""
        while True:
            page = await self.list_items(
                page_size=c.MAX_PAGE,
                page_token=token,
                filter=filter,
                payload=wanted,
                collection=collection,
            )
            for item in page.items:
                yield item
            token = page.next_page_token
            if not token:
                return

    async def count_items(
        self,
        filter: c.Filter | None = None,
        facets: Sequence[c.Facet] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items and values of attributes; see `Retriever.count_items`."""
        request = retrieval_pb2.CountItemsRequest(
            collection=collection,
            filter=None if filter is None else wire.filter_to_proto(filter),
            facets=[retrieval_pb2.Facet(field=one.field, limit=one.limit) for one in facets],
        )
        return wire.count_reply(
            await self.call(lambda: self._stub.CountItems(request, timeout=_timeout(timeout_s)))
        )


class GenerationClient(ServiceChannel):
    """Client of the generation service; a `Generator`.

    Args:
        address: "host:port" of the service.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self.grpc_channel)

    async def generate(
        self,
        question: c.Question,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> AsyncIterator[c.AnswerEvent]:
        """Answers a question; see `Generator.generate`.

        Leaving the loop early cancels the call, and the work for it. timeout_s: of the whole
        answer; None is 60 s.
        """
        request = wire.question_to_proto(question, collection)
        limit_s = _ANSWER_TIMEOUT_S if timeout_s is None else timeout_s
        call = self._stub.Generate(request, timeout=limit_s)
        try:
            async for message in call:
                yield wire.event_from_proto(message)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    async def verify(
        self,
        citations: Sequence[c.Citation],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.VerifyReply:
        """Checks 1..1024 citations against what is served now; see `Generator.verify`."""
        request = generation_pb2.VerifyCitationRequest(
            collection=collection, citations=map(wire.citation_to_proto, citations)
        )
        return wire.verify_reply(
            await self.call(lambda: self._stub.VerifyCitation(request, timeout=_timeout(timeout_s)))
        )


class AdminClient(ServiceChannel):
    """Client of the admin service that a router hosts.

    Args:
        address: "host:port" of the router.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = admin_pb2_grpc.AdminServiceStub(self.grpc_channel)

    async def serving_status(self) -> admin_pb2.GetServingStatusResponse:
        """Tells what the router serves."""
        request = admin_pb2.GetServingStatusRequest()
        return await self.call(
            lambda: self._stub.GetServingStatus(request, timeout=DEFAULT_TIMEOUT_S)
        )

    async def snapshots(
        self, collection: str = c.DEFAULT_COLLECTION
    ) -> AsyncIterator[snapshot_pb2.Manifest]:
        """Yields the manifests of a collection, newest first, without their file lists."""
        request = admin_pb2.ListSnapshotsRequest(collection=collection)
        while True:
            page = await self.call(
                lambda: self._stub.ListSnapshots(request, timeout=DEFAULT_TIMEOUT_S)
            )
            for manifest in page.snapshots:
                yield manifest
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def snapshot(
        self, collection: str = c.DEFAULT_COLLECTION, snapshot_id: str = ""
    ) -> snapshot_pb2.Manifest:
        """Reads one manifest; an empty id is the current snapshot."""
        request = admin_pb2.GetSnapshotRequest(collection=collection, snapshot_id=snapshot_id)
        reply = await self.call(lambda: self._stub.GetSnapshot(request, timeout=DEFAULT_TIMEOUT_S))
        return reply.snapshot

    async def aliases(
        self, collection: str = c.DEFAULT_COLLECTION, history: int = 0
    ) -> admin_pb2.GetAliasesResponse:
        """Reads the alias record in force and up to `history` older ones."""
        request = admin_pb2.GetAliasesRequest(collection=collection, history=history)
        return await self.call(lambda: self._stub.GetAliases(request, timeout=DEFAULT_TIMEOUT_S))

    async def promote(
        self,
        snapshot_id: str,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current, once its files are checked; gives the new record.

        Raises: Conflict: expected_epoch is given, and another one is in force.
        """
        request = admin_pb2.PromoteSnapshotRequest(
            collection=collection,
            snapshot_id=snapshot_id,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
        )
        reply = await self.call(
            lambda: self._stub.PromoteSnapshot(request, timeout=_CHECK_TIMEOUT_S)
        )
        return reply.record

    async def roll_back(
        self,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Makes the snapshot before the current one current again; as `promote`."""
        request = admin_pb2.RollbackSnapshotRequest(
            collection=collection, expected_epoch=expected_epoch, who=who, why=why
        )
        reply = await self.call(
            lambda: self._stub.RollbackSnapshot(request, timeout=_CHECK_TIMEOUT_S)
        )
        return reply.record


def _timeout(timeout_s: float | None) -> float:
    return DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s


def _embed_request(
    texts: Sequence[str],
    role: c.TextRole,
    dimensions: int | None,
    expected_fingerprint: str,
    lane: c.Lane,
) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(
        texts=texts,
        role=wire.ROLES[role],
        dimensions=dimensions,
        expected_fingerprint=expected_fingerprint,
        lane=wire.LANES[lane],
    )
