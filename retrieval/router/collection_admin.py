"""Creates, describes and drops collections while others are served.

create: an empty snapshot -> its alias record -> served
drop: a record that says so -> no longer served, here and elsewhere -> state and files removed
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from nearline.clients import IngestClient
from nearline.contract import DEFAULT_COLLECTION, JobState
from nearline.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    SnapshotCorrupt,
    SnapshotMismatch,
    Unsupported,
)
from nearline.retry import retry_while_overloaded
from nearline.store.removal import remove_files, remove_older_records
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import admin_pb2, snapshot_pb2
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.compute_threads import check_needed, read_store
from retrieval.redis_client.collection_keys import remove_keys
from retrieval.redis_client.connection import Redis
from retrieval.rollout.collections import ServedCollections
from retrieval.router.new_collection import CollectionLimits, CollectionShape, shape_of
from retrieval.snapshots import aliases
from retrieval.snapshots.collection_names import CollectionNames
from retrieval.snapshots.follower import AliasFollower

_OPEN = (JobState.QUEUED, JobState.RUNNING)


class EmptiedQueue(NamedTuple):
    """Numbers of the cancelled jobs and the deleted dead letters."""

    jobs: int
    dead_letters: int


async def empty_queue(ingest: IngestClient, collection: str) -> EmptiedQueue:
    """Cancels the jobs of a collection and deletes its dead letters.

    Finished jobs stay listed until they expire; none of their documents is written any more.

    Raises: Errors of the document queue; it is safe to repeat the call.
    """
    jobs = letters = 0
    token = ""
    while True:
        read_jobs = partial(ingest.jobs, collection=collection, states=_OPEN, token=token)
        page = await retry_while_overloaded(read_jobs)
        for job in page.jobs:
            await retry_while_overloaded(partial(ingest.cancel, job.job_id))
            jobs += 1
        token = page.token
        if not token:
            break
    while True:
        found = await retry_while_overloaded(partial(ingest.dead_letters, token=token))
        mine = [one.letter_id for one in found.letters if one.collection == collection]
        delete = partial(ingest.delete_dead_letters, mine)
        letters += await retry_while_overloaded(delete) if mine else 0
        token = found.token
        if not token:
            return EmptiedQueue(jobs, letters)


DropCollection: TypeAlias = Callable[[str], Awaitable[None]]


class CollectionAdmin:
    """Administers the collections of a store that a router serves.

    Args:
        store: The store.
        collections: The collections served here.
        follower: Loads what the aliases name.
        embedders: Embedding services; None if there is none.
        redis: What holds live changes, users and cached lists; empty without a Redis.
        ingest: The document queue. Optional.
        limits: Limits and defaults.
        names: Second names of collections.
        drop_in_milvus: Drops what Milvus holds of a collection; None with other backends.
    """

    def __init__(
        self,
        store: Store,
        collections: ServedCollections,
        follower: AliasFollower[Any],
        embedders: Embedders | None,
        redis: Sequence[Redis],
        ingest: IngestClient | None,
        limits: CollectionLimits,
        names: CollectionNames,
        drop_in_milvus: DropCollection | None = None,
    ) -> None:
        self._store = store
        self._collections = collections
        self._follower = follower
        self._embedders = embedders
        self._redis = redis
        self._ingest = ingest
        self._limits = limits
        self._names = names
        self._drop_in_milvus = drop_in_milvus
        self._drops: dict[str, asyncio.Task[admin_pb2.DropCollectionResponse]] = {}
        # Epochs of drops that began here, until everything is removed.
        self._unfinished: dict[str, int] = {}

    async def create(self, request: admin_pb2.CreateCollectionRequest) -> admin_pb2.Collection:
        """Creates an empty collection and serves it.

        Raises: AlreadyExists: There is one of this name. Conflict: One is being dropped.
            InvalidRequest: An option is out of range. NotReady: It exists, but cannot be served
            yet. Unsupported: The backend cannot hold an empty collection.
        """
        name = check_collection(request.collection or DEFAULT_COLLECTION)
        if self._drop_in_milvus is not None:
            raise Unsupported(
                "backend milvus serves collections that were built and exported to it; build this "
                f"one: nearline build --corpus FILE --collection {name}"
            )
        self._names.check_free(name)
        await asyncio.to_thread(self._check_room, name)
        shape = await shape_of(request, self._embedders, self._limits)
        await asyncio.to_thread(self._publish, name, shape, request)
        await self._follower.reach(name)
        return await self.describe(name)

    async def set_name(self, name: str, target: str, who: str, why: str) -> Sequence[str]:
        """Lets a second name point to a collection, or frees it if there is no target.

        Returns: All second names of the target.
        Raises: As `CollectionNames.point`.
        """
        await self._names.point(name, target, who=who, why=why)
        return self._names.of(target)

    async def describe(self, name: str) -> admin_pb2.Collection:
        """Describes a collection.

        Raises: NotFound. SnapshotCorrupt, SnapshotMismatch: Its manifest cannot be read.
        """
        return await read_store(lambda: self._describe(name, self._store.alias_in_force(name)))

    async def describe_page(
        self, may_read: Callable[[str], bool], after: str, size: int
    ) -> admin_pb2.ListCollectionsResponse:
        """Describes the next collections by name.

        Args:
            may_read: Whether the caller may know of a collection.
            after: Last name of the page before; empty for the first page.
            size: Collections of the page.
        """

        def read() -> admin_pb2.ListCollectionsResponse:
            names = [one for one in self._store.collections() if one > after and may_read(one)]
            page = self._describe_all(names[:size])
            token = names[size - 1] if len(names) > size else ""
            return admin_pb2.ListCollectionsResponse(collections=page, next_page_token=token)

        return await read_store(read)

    async def drop(self, name: str, who: str, why: str) -> admin_pb2.DropCollectionResponse:
        """Removes a collection for good; goes on if the caller no longer waits.

        Raises: NotFound. Conflict: Another process is dropping it. NotReady, StoreError: It is no
            longer served, but something of it may be left; repeat the call.
        """
        name = check_collection(name)
        if (target := self._names.resolve(name)) != name:
            raise InvalidRequest(
                f"{name!r} is a second name of {target!r}; drop that, or free the name: nearline "
                f"collections free {name}",
                field="collection",
            )
        task = self._drops.get(name)
        if task is None:
            task = self._drops[name] = asyncio.create_task(self._drop(name, who, why))
            task.add_done_callback(lambda done: self._drops.pop(name, None))
        return await asyncio.shield(task)

    async def _drop(self, name: str, who: str, why: str) -> admin_pb2.DropCollectionResponse:
        served = self._collections.loaded.current(name)
        documents = 0 if served is None else served.value.documents
        record = await asyncio.to_thread(
            aliases.drop,
            self._store,
            name,
            who=who,
            why=why,
            ended_epoch=self._unfinished.get(name, 0),
        )
        self._unfinished[name] = record.epoch
        await self._names.forget(name, who=who)
        receipt = await self._remove(name, record, documents)
        del self._unfinished[name]
        return receipt

    async def _remove(
        self, name: str, record: snapshot_pb2.AliasRecord, documents: int
    ) -> admin_pb2.DropCollectionResponse:
        await self._follower.poll()
        # Until then other routers may still write to it.
        await asyncio.sleep(2 * self._limits.poll_s)
        queue = EmptiedQueue(0, 0)
        if self._ingest is not None:
            # Not for the caller, who is one of the tenants whose jobs end.
            own = asyncio.create_task(empty_queue(self._ingest, name), context=Context())
            queue = await own
        keys = sum([await remove_keys(one, name) for one in self._redis])
        snapshots = await asyncio.to_thread(remove_files, self._store, name, record)
        if self._drop_in_milvus is not None:
            await self._drop_in_milvus(name)
        await asyncio.to_thread(remove_older_records, self._store, name, record)
        return admin_pb2.DropCollectionResponse(
            snapshots=snapshots,
            documents=documents,
            redis_keys=keys,
            epoch=record.epoch,
            cancelled_jobs=queue.jobs,
            dead_letters=queue.dead_letters,
        )

    def _check_room(self, name: str) -> None:
        aliases.check_free(self._store, name)
        most = self._limits.collections
        if len(self._store.collections()) >= most:
            raise InvalidRequest(
                f"the store has {most:,} collections, and may have {most:,} (--max-collections); "
                "drop some, or raise the limit",
                field="collection",
            )

    def _publish(
        self, name: str, shape: CollectionShape, request: admin_pb2.CreateCollectionRequest
    ) -> None:
        # Imported late: a router with shard servers runs without Arrow until it creates one.
        from retrieval.router.empty_snapshot import publish_empty_snapshot

        snapshot_id = publish_empty_snapshot(self._store, name, shape)
        try:
            aliases.create(
                self._store, name, snapshot_id, who=request.who, why=request.why or "created"
            )
        except (AlreadyExists, Conflict):
            self._store.remove_snapshot(name, snapshot_id)
            raise

    def _describe_all(self, names: Sequence[str]) -> list[admin_pb2.Collection]:
        """Describes collections without those dropped meanwhile; of damaged ones, their names."""
        described = []
        for name in names:
            check_needed()
            record = snapshot_pb2.AliasRecord()
            try:
                record = self._store.alias_in_force(name)
                described.append(self._describe(name, record))
            except NotFound:
                continue
            except (SnapshotCorrupt, SnapshotMismatch):
                described.append(self._summary(name, record))
        return described

    def _describe(self, name: str, record: snapshot_pb2.AliasRecord) -> admin_pb2.Collection:
        manifest = self._store.manifest(name, record.current)
        described = self._summary(name, record)
        described.MergeFrom(
            admin_pb2.Collection(
                snapshot_time=manifest.create_time,
                embedder=manifest.embedder if manifest.HasField("embedder") else None,
                dim=manifest.dim,
                metric=manifest.metric,
                shards=len(manifest.shards),
                language=manifest.lexical.language,
                attributes=manifest.attributes,
                documents=manifest.documents,
                search_weights=manifest.lexical.weights,
                search_languages=manifest.lexical.languages,
                synonym_rules=manifest.lexical.synonym_rules,
            )
        )
        return described

    def _summary(self, name: str, record: snapshot_pb2.AliasRecord) -> admin_pb2.Collection:
        return admin_pb2.Collection(
            name=name,
            epoch=record.epoch,
            snapshot_id=record.current,
            served=self._collections.loaded.current(name) is not None,
            names=self._names.of(name),
        )
