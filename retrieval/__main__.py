"""The router: `python -m retrieval --store DIR`."""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nearline import serving, settings, status, telemetry
from nearline.access.method_guard import (
    current_caller,
    current_item_limit,
    current_limits,
)
from nearline.access.readers import Ownership, ReaderFilter
from nearline.clients import EmbeddingClient, IngestClient
from nearline.errors import NearlineError
from nearline.filters import Filter
from nearline.forwarder import ForwardedService
from nearline.store.snapshot import Store
from nearline.thread_priority import use_batch_scheduling
from nearline.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    embedding_pb2,
    generation_pb2,
    ingest_pb2,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from retrieval.behaviour.model import load_behaviour_model
from retrieval.blas_threads import use_one_core
from retrieval.cache.change_tracker import ChangeTrackerRegistry
from retrieval.cache.tiered_cache import TieredCache
from retrieval.changelog.registry import REDIS_TIMEOUT_S, ChangeLogs
from retrieval.embedders.endpoints import Embedders
from retrieval.monitoring.popular_queries import PopularQueries
from retrieval.monitors import Monitors
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.personal_lists import PersonalLists
from retrieval.recommend.policies import default_policies
from retrieval.recommend.policy_file import read_policies
from retrieval.recommend.service import RecommendationService
from retrieval.recommend.stored_policies import StoredPolicies
from retrieval.redis_client.connection import Redis, connect
from retrieval.rollout.canaries import CanaryController
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.trial import TrialRecall
from retrieval.router.admin_servicer import AdminServicer
from retrieval.router.collection_admin import CollectionAdmin, DropCollection
from retrieval.router.live_reports import LiveReporter
from retrieval.router.new_collection import CollectionLimits
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.router.search_limits import price_bounds
from retrieval.router.second_names import TakesSecondNames
from retrieval.router.service import RetrievalService
from retrieval.router.servicer import RetrievalServicer
from retrieval.search.collection import ServedCollection
from retrieval.search.search_cache import SearchCache
from retrieval.settings import RouterSettings
from retrieval.shards.provider import ShardProvider
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.shards.topology import check_address, parse_addresses, parse_topology
from retrieval.snapshots.aliases import operator_name
from retrieval.snapshots.collection_names import CollectionNames
from retrieval.snapshots.follower import AliasFollower
from retrieval.snapshots.training_statuses import TrainingStatuses
from retrieval.trends.trend_reader import TrendReader
from retrieval.writes.feed_block import (
    FeedBlock,
    disk_resource,
    memory_resource,
    redis_resource,
)
from retrieval.writes.item_quota import ItemQuota
from retrieval.writes.memory_quota import MemoryQuota
from retrieval.writes.writer import CheckChange, Writer

# Policies change seldom: they are looked for at every so many polls of the aliases.
_POLICY_POLLS = 5
# Longest lifetime of a cached list; one that is kept for less counts for less.
_LIST_S = 3_600


async def main(argv: Sequence[str]) -> None:
    """Serves until the process is stopped."""
    config = settings.load_from_process(RouterSettings, argv)
    config.check()
    telemetry.configure_logging(config.log_level, "retrieval")
    store = Store.open(config.store, config.cache_dir)
    status.hide_place(store.url)
    addresses = parse_addresses(config.embedding, "--embedding")
    embedding = {address: EmbeddingClient(address) for address in addresses}
    embedders = Embedders(embedding)
    logs = None
    redis = cache_redis = None
    stored: list[Redis] = []
    if config.redis:
        logs = ChangeLogs(
            store,
            config.redis,
            who=operator_name(),
            users_url=config.redis_users,
            replicas=config.log_replicas,
        )
        # No retries: a write without an answer may have been executed.
        redis = cache_redis = connect(config.redis, timeout_s=REDIS_TIMEOUT_S, retries=0)
        stored += logs.clients
    if config.redis_cache:
        cache_redis = connect(config.redis_cache, timeout_s=REDIS_TIMEOUT_S, retries=0)
        stored.append(cache_redis)
    readers = ReaderFilter(config.readers_attribute)

    def visible() -> Filter | None:
        return readers.visible_to(current_caller())

    def owner() -> Ownership | None:
        return readers.ownership(current_caller())

    def price_limits() -> Sequence[tuple[str, int]]:
        return price_bounds(config.max_comparisons, current_limits())

    provider, check, drop_in_milvus = await _make_backend(
        config, store, logs, embedders if embedding else None, redis
    )
    feed_block = None
    if logs is not None:
        feed_block = _make_feed_block(config, store, provider, logs.clients)
    use_one_core()
    collections = ServedCollections(config.snapshot_drain_s)
    writer = None
    if logs is not None:
        quota = ItemQuota(current_item_limit)
        writer = Writer(collections, embedders, logs.log, check, owner, feed_block, quota)
    replies = ReplyInfoBuilder(collections)
    trackers = ChangeTrackerRegistry(store, logs)
    search_cache = None
    if config.search_cache:
        fresh_s, size = config.search_cache_s, config.search_cache
        lists = TieredCache(None, capacity=size, ttl_s=fresh_s, stale_s=6 * fresh_s, abandons=True)
        search_cache = SearchCache(lists, trackers)
    trial_recall = TrialRecall(collections.trials, config.recall_sample)
    monitors = Monitors(
        config,
        store,
        collections,
        shares=trial_recall.share,
        on_recall=trial_recall.record,
    )
    popular = PopularQueries(store, collections, config.popular_queries)
    policies = StoredPolicies(
        store,
        read_policies(Path(config.policies)) if config.policies else default_policies(),
        lambda: [served.name for served in collections.in_force],
        _POLICY_POLLS * config.alias_poll_s,
    )
    list_quota = None
    if feed_block is not None and redis is not None and cache_redis is redis:
        # A Redis of its own for caches evicts what is oldest.
        list_quota = MemoryQuota(redis, feed_block, _LIST_S)

    async def reserve(size: int, keep_s: float) -> None:
        caller = current_caller()
        if list_quota is not None and not caller.names_tenants:
            await list_quota.reserve(caller.owner, round(size * keep_s / _LIST_S))

    lists = TieredCache(cache_redis, capacity=config.hot_lists, reserve=reserve)
    candidates = CandidateCache(lists, trackers)
    personal = PersonalLists(trackers)
    recommender = RecommendationService(
        collections,
        policies,
        None if logs is None else logs.user_states,
        candidates,
        personal,
        replies,
        store,
        observe=monitors.observe,
        visible=visible,
        feed_block=feed_block,
    )
    service = RetrievalService(
        embedders,
        collections,
        replies,
        search_cache,
        monitors.observe,
        visible,
        price_limits,
        popular.complete,
        recommender.history,
    )

    trends: dict[str, TrendReader] = {}

    async def load(snapshot: SnapshotRef) -> ServedCollection:
        _, shards, model = await asyncio.gather(
            _make_log(logs, snapshot.collection),
            provider.prepare(snapshot),
            asyncio.to_thread(
                # Milvus has no tables of behaviour.
                lambda: load_behaviour_model(store, snapshot, local=config.backend == "milvus")
            ),
        )
        name = snapshot.collection
        if logs is not None and name not in trends:
            trends[name] = TrendReader(logs.clients[-1], name)
            await trends[name].refresh()
        newest = partial(trackers.newest, name)
        collection = ServedCollection(snapshot, shards, model, trends.get(name), newest)
        await trackers.follow(snapshot)
        await candidates.prewarm(collection, config.hot_lists)
        return collection

    async def forget(name: str) -> None:
        if logs is not None:
            logs.forget(name)
        policies.forget(name)
        trends.pop(name, None)
        await trackers.forget(name)

    canaries = CanaryController(
        store, collections, load, lambda *key: follower.forget(*key), policies.try_out
    )
    follower = AliasFollower(
        store,
        config.collection_names(),
        collections.loaded,
        load=load,
        unload=provider.release,
        poll_s=config.alias_poll_s,
        on_record=canaries.update,
        on_drop=forget,
        allow_empty=config.allow_empty,
    )
    names = CollectionNames(store, config.alias_poll_s)
    ingest = IngestClient(config.ingest) if config.ingest else None
    limits = CollectionLimits(
        collections=config.max_collections,
        servers=len(parse_topology(config.shards)) if config.shards else 0,
        poll_s=config.alias_poll_s,
    )
    collection_admin = CollectionAdmin(
        store,
        collections,
        follower,
        embedders if embedding else None,
        stored,
        ingest,
        limits,
        names,
        drop_in_milvus,
    )

    async def ready() -> None:
        await follower.start()
        collections.started = True
        await policies.start()
        await names.start()
        monitors.start()
        popular.start()
        if feed_block is not None:
            await feed_block.start()

    async def close() -> None:
        if feed_block is not None:
            await feed_block.close()
        await canaries.close()
        await follower.close()
        await monitors.close()
        await popular.close()
        await names.close()
        await policies.close()
        await candidates.close()
        if search_cache is not None:
            await search_cache.close()
        await trackers.close()
        await provider.close()
        if logs is not None:
            await logs.close()
        for one in dict.fromkeys((redis, cache_redis)):
            if one is not None:
                await one.aclose()
        for client in (*embedding.values(), *([] if ingest is None else [ingest])):
            await client.close()

    admin = AdminServicer(
        store,
        collections,
        follower.desired_states,
        LiveReporter(store, logs, provider),
        canaries,
        collection_admin,
        policies,
        config.security_warning(),
        feed_block,
        None if redis is None else TrainingStatuses(redis),
        visible,
    )
    await serving.serve(
        config,
        [
            _registration(
                retrieval_pb2,
                retrieval_pb2_grpc,
                "RetrievalService",
                RetrievalServicer(service, recommender, writer),
                names,
            ),
            _registration(admin_pb2, admin_pb2_grpc, "AdminService", admin, names),
        ],
        ready=ready,
        close=close,
        forwarded=_forwarded(config, addresses),
    )


def _registration(
    messages: Any, stubs: Any, name: str, servicer: object, names: CollectionNames
) -> serving.Registration:
    """Returns the registration of a servicer that takes second names of collections."""
    service = messages.DESCRIPTOR.services_by_name[name]
    named = TakesSecondNames(servicer, service, names.resolve)
    add = getattr(stubs, f"add_{name}Servicer_to_server")
    return serving.Registration(service.full_name, lambda server: add(named, server))


def _forwarded(config: RouterSettings, embedding: Sequence[str]) -> Sequence[ForwardedService]:
    """Returns the services that are reached through this one, so that clients need one address."""
    found = (
        (embedding_pb2, "EmbeddingService", next(iter(embedding), ""), "--embedding"),
        (generation_pb2, "GenerationService", config.generation, "--generation"),
        (ingest_pb2, "IngestService", config.ingest, "--ingest"),
    )
    return [
        ForwardedService(
            module.DESCRIPTOR.services_by_name[name],
            check_address(address, option) if address else "",
            option,
        )
        for module, name, address, option in found
    ]


async def _make_backend(
    config: RouterSettings,
    store: Store,
    logs: ChangeLogs | None,
    embedders: Embedders | None,
    redis: Redis | None,
) -> tuple[ShardProvider, CheckChange | None, DropCollection | None]:
    """Returns the provider of shards, what refuses changes that it cannot store, and what drops a
    collection there.
    """
    if config.shards:
        return RemoteShardProvider(parse_topology(config.shards), config.shard_wait_s), None, None
    # Imported late: a router without local shards does not need faiss.
    from retrieval.live.live_changes import LiveChanges

    reader = None if logs is None else logs.reader
    live = LiveChanges(store, reader, embedders=embedders, allow_stale=config.allow_stale)
    if config.backend == "milvus":
        # Imported late: the Milvus client is an optional dependency.
        from retrieval.milvus.open_client import open_client

        client = open_client(config.milvus_uri, config.milvus_token)
        from retrieval.milvus.provider import MilvusShardProvider

        milvus = MilvusShardProvider(store, client, live=live, redis=redis)
        return milvus, milvus.check, milvus.drop
    from retrieval.index.gpu.gpu_pool import open_pool
    from retrieval.shards.local_provider import LocalShardProvider

    gpus = await asyncio.to_thread(open_pool, config.device, config.device_memory_bytes)
    local = LocalShardProvider(
        store, config.thread_count(), headroom=config.load_headroom, live=live, gpus=gpus
    )
    return local, None, None


def _make_feed_block(
    config: RouterSettings, store: Store, provider: ShardProvider, redis: Sequence[Redis]
) -> FeedBlock:
    remote = provider.server_memory if isinstance(provider, RemoteShardProvider) else dict
    return FeedBlock(
        (
            redis_resource(redis[0], config.feed_block_redis, *redis[1:]),
            disk_resource(store.files.folder, config.feed_block_disk),
            memory_resource(config.feed_block_memory, remote),
        )
    )


async def _make_log(logs: ChangeLogs | None, collection: str) -> None:
    """Creates the change log of a collection, if it has none, before any change is accepted.

    Shard servers may not write to the store, which records the name of the log.
    """
    if logs is not None:
        # If the log is unavailable now, later requests that need the log report the error.
        with contextlib.suppress(NearlineError):
            await logs.log(collection).state()


if __name__ == "__main__":
    use_batch_scheduling()
    serving.run(main(sys.argv[1:]), "retrieval")
