"""Blocking clients for notebooks, scripts and threads: the async clients behind plain calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Self

from nearline.clients import (
    AdminClient,
    EmbeddingClient,
    GenerationClient,
    IngestClient,
    RetrievalClient,
)
from nearline.clients.admin import NO_ATTRIBUTES, NO_LANGUAGES, NO_WEIGHTS
from nearline.clients.blocking_calls import (
    BlockingCalls,
    BlockingClient,
    call,
    client_loop,
    feed,
    stream,
)
from nearline.clients.client import START_TIMEOUT_S, AsyncClient, AsyncCollections
from nearline.contract import DEFAULT_COLLECTION, Lane
from nearline.tls import TlsFiles


class BlockingRetrievalClient(BlockingClient[RetrievalClient]):
    """`RetrievalClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls, lane: See `ServiceChannel`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        lane: Lane | str = Lane.INTERACTIVE,
    ) -> None:
        super().__init__(lambda: RetrievalClient(address, token=token, tls=tls, lane=lane))

    search = call(RetrievalClient.search)
    search_batch = call(RetrievalClient.search_batch)
    get_items = call(RetrievalClient.get_items)
    list_items = call(RetrievalClient.list_items)
    items = stream(RetrievalClient.items)
    count_items = call(RetrievalClient.count_items)
    suggest = call(RetrievalClient.suggest)
    upsert_items = call(RetrievalClient.upsert_items)
    delete_items = call(RetrievalClient.delete_items)
    delete_matching = call(RetrievalClient.delete_matching)
    upsert_batches = call(feed(RetrievalClient.upsert_batches))
    delete_batches = call(feed(RetrievalClient.delete_batches))
    recommend = call(RetrievalClient.recommend)
    record_interactions = call(RetrievalClient.record_interactions)
    import_interactions = call(feed(RetrievalClient.import_interactions))
    set_user = call(RetrievalClient.set_user)
    get_user = call(RetrievalClient.get_user)
    delete_user = call(RetrievalClient.delete_user)


class BlockingIngestClient(BlockingClient[IngestClient]):
    """`IngestClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: IngestClient(address, token=token, tls=tls))

    submit = call(IngestClient.submit)
    job = call(IngestClient.job)
    watch = stream(IngestClient.watch)
    wait = call(IngestClient.wait)
    jobs = call(IngestClient.jobs)
    cancel = call(IngestClient.cancel)
    results = call(IngestClient.results)
    dead_letters = call(IngestClient.dead_letters)
    requeue = call(IngestClient.requeue)
    delete_dead_letters = call(IngestClient.delete_dead_letters)
    queue = call(IngestClient.queue)


class BlockingEmbeddingClient(BlockingClient[EmbeddingClient]):
    """`EmbeddingClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: EmbeddingClient(address, token=token, tls=tls))

    embed = call(EmbeddingClient.embed)
    embed_stream = stream(feed(EmbeddingClient.embed_stream))
    rerank = call(EmbeddingClient.rerank)
    entail = call(EmbeddingClient.entail)
    info = call(EmbeddingClient.info)


class BlockingGenerationClient(BlockingClient[GenerationClient]):
    """`GenerationClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: GenerationClient(address, token=token, tls=tls))

    generate = stream(GenerationClient.generate)
    verify = call(GenerationClient.verify)
    session = call(GenerationClient.session)
    delete_session = call(GenerationClient.delete_session)


class BlockingAdminClient(BlockingClient[AdminClient]):
    """`AdminClient` without async.

    Args:
        address: "host:port" of the router.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: AdminClient(address, token=token, tls=tls))

    serving_status = call(AdminClient.serving_status)
    create_collection = call(AdminClient.create_collection)
    collections = stream(AdminClient.collections)
    collection = call(AdminClient.collection)
    drop_collection = call(AdminClient.drop_collection)
    set_collection_name = call(AdminClient.set_collection_name)
    policies = call(AdminClient.policies)
    set_policies = call(AdminClient.set_policies)
    snapshots = stream(AdminClient.snapshots)
    snapshot = call(AdminClient.snapshot)
    aliases = call(AdminClient.aliases)
    promote = call(AdminClient.promote)
    split = call(AdminClient.split)
    rollout_status = call(AdminClient.rollout_status)
    roll_back = call(AdminClient.roll_back)


class Collections(BlockingCalls[AsyncCollections]):
    """The collections that a service has; `Client.collections`."""

    create = call(AsyncCollections.create)
    list = call(AsyncCollections.list)
    get = call(AsyncCollections.get)
    set_name = call(AsyncCollections.set_name)
    drop = call(AsyncCollections.drop)


class Client(BlockingClient[AsyncClient]):
    """Client of everything that one address serves; `AsyncClient` is the same for async programs.

    It takes what people write: texts for queries and enums, filters as texts or dicts, lists and
    numpy's values. Searches, lists and items come with their titles and texts. Reads include all
    earlier writes of the same client. Safe to share between threads. Close it, or use it as a
    context manager.

    Args:
        address: "host:port" of the router, which passes calls of other services on to them.
        token, tls, collection, own_writes, lane, generation, ingest, embedding: See `AsyncClient`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        collection: str = DEFAULT_COLLECTION,
        own_writes: bool = True,
        lane: Lane | str = Lane.INTERACTIVE,
        generation: str = "",
        ingest: str = "",
        embedding: str = "",
    ) -> None:
        super().__init__(
            lambda: AsyncClient(
                address,
                token=token,
                tls=tls,
                collection=collection,
                own_writes=own_writes,
                lane=lane,
                generation=generation,
                ingest=ingest,
                embedding=embedding,
            )
        )

    @classmethod
    def embedded(
        cls,
        path: str | os.PathLike[str],
        *,
        collection: str = DEFAULT_COLLECTION,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        search_weights: Mapping[str, float] = NO_WEIGHTS,
        search_languages: Mapping[str, str] = NO_LANGUAGES,
        synonyms: Sequence[str] = (),
        own_writes: bool = True,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Self:
        """See `AsyncClient.embedded`."""
        client = client_loop.run(
            AsyncClient.embedded(
                path,
                collection=collection,
                attributes=attributes,
                search_weights=search_weights,
                search_languages=search_languages,
                synonyms=synonyms,
                own_writes=own_writes,
                timeout_s=timeout_s,
            )
        )
        return cls._of(lambda: client)

    search = call(AsyncClient.search)
    search_batch = call(AsyncClient.search_batch)
    recommend = call(AsyncClient.recommend)
    get = call(AsyncClient.get)
    items = stream(AsyncClient.items)
    count = call(AsyncClient.count)
    suggest = call(AsyncClient.suggest)
    upsert = call(AsyncClient.upsert)
    upsert_batches = call(feed(AsyncClient.upsert_batches))
    upsert_frame = call(AsyncClient.upsert_frame)
    delete = call(AsyncClient.delete)
    delete_matching = call(AsyncClient.delete_matching)
    delete_batches = call(feed(AsyncClient.delete_batches))
    record = call(AsyncClient.record)
    import_interactions = call(feed(AsyncClient.import_interactions))
    user = call(AsyncClient.user)
    set_user = call(AsyncClient.set_user)
    delete_user = call(AsyncClient.delete_user)
    ask = call(AsyncClient.ask)
    ask_stream = stream(AsyncClient.ask_stream)
    verify = call(AsyncClient.verify)
    embed = call(AsyncClient.embed)
    rerank = call(AsyncClient.rerank)
    submit = call(AsyncClient.submit)
    job = call(AsyncClient.job)
    wait = call(AsyncClient.wait)
    status = call(AsyncClient.status)

    @property
    def collections(self) -> Collections:
        """See `AsyncClient.collections`."""
        return Collections._of(lambda: self._client.collections)

    @property
    def retrieval(self) -> BlockingRetrievalClient:
        """See `AsyncClient.retrieval`."""
        return BlockingRetrievalClient._of(lambda: self._client.retrieval)

    @property
    def generation(self) -> BlockingGenerationClient:
        """See `AsyncClient.generation`."""
        return BlockingGenerationClient._of(lambda: self._client.generation)

    @property
    def ingest(self) -> BlockingIngestClient:
        """See `AsyncClient.ingest`."""
        return BlockingIngestClient._of(lambda: self._client.ingest)

    @property
    def embedding(self) -> BlockingEmbeddingClient:
        """See `AsyncClient.embedding`."""
        return BlockingEmbeddingClient._of(lambda: self._client.embedding)

    @property
    def admin(self) -> BlockingAdminClient:
        """See `AsyncClient.admin`."""
        return BlockingAdminClient._of(lambda: self._client.admin)
