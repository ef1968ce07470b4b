"""The router: `python -m retrieval --store DIR`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nearline import serving, settings, telemetry
from nearline.clients import EmbeddingClient
from nearline.errors import NearlineError
from nearline.snapshot import Store
from nearline.v1 import admin_pb2_grpc, retrieval_pb2_grpc
from retrieval.behaviour.model import load_behaviour_model
from retrieval.blas_threads import use_one_core
from retrieval.cache.tiered_cache import TieredCache
from retrieval.cache.tracker_registry import ChangeTrackerRegistry
from retrieval.changelog.registry import REDIS_TIMEOUT_S, ChangeLogs
from retrieval.embedders.endpoints import Embedders
from retrieval.monitors import Monitors
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.policies import default_policies
from retrieval.recommend.policy_file import read_policies
from retrieval.recommend.service import RecommendationService
from retrieval.redis_client.connection import Redis, connect
from retrieval.redis_client.durability import Durability
from retrieval.rollout.canaries import CanaryController
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.trial import TrialRecall
from retrieval.router.admin_servicer import AdminServicer
from retrieval.router.live_reports import LiveReporter
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.router.service import RetrievalService
from retrieval.router.servicer import RetrievalServicer
from retrieval.search.collection import ServedCollection
from retrieval.search.search_cache import SearchCache
from retrieval.settings import RouterSettings
from retrieval.shards.provider import ShardProvider
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.shards.topology import parse_addresses, parse_topology
from retrieval.snapshots.aliases import operator_name
from retrieval.snapshots.follower import AliasFollower, LifecycleHooks
from retrieval.users.states import UserStates
from retrieval.writes.writer import CheckChange, Writer


async def main(argv: Sequence[str]) -> None:
    """Serves until told to stop."""
    chosen = settings.load_from_process(RouterSettings, argv)
    chosen.check()
    telemetry.configure_logging(chosen.log_level, "retrieval")
    store = Store.open(chosen.store, chosen.cache_dir)
    addresses = parse_addresses(chosen.embedding, "--embedding")
    embedding = {address: EmbeddingClient(address) for address in addresses}
    embedders = Embedders(embedding)
    logs = None
    user_redis = None
    if chosen.redis:
        logs = ChangeLogs(store, chosen.redis, who=operator_name(), replicas=chosen.log_replicas)
        # What was recorded may have been carried out without an answer: never sent again unasked.
        user_redis = connect(chosen.redis, timeout_s=REDIS_TIMEOUT_S, retries=0)
    hosting, check = _make_backend(
        chosen, store, logs, embedders if embedding else None, user_redis
    )
    use_one_core()
    collections = ServedCollections(chosen.snapshot_drain_s)
    writer = None if logs is None else Writer(collections, embedders, logs, check)
    reports = ReplyInfoBuilder(collections)
    touchings = ChangeTrackerRegistry(store, logs)
    kept = None
    if chosen.search_cache:
        fresh_s = chosen.search_cache_s
        lists = TieredCache(None, capacity=chosen.search_cache, ttl_s=fresh_s, stale_s=6 * fresh_s)
        kept = SearchCache(lists, touchings)
    recalled = TrialRecall(collections.trials, chosen.recall_sample)
    watchers = Monitors(
        chosen,
        store,
        collections,
        hosting,
        user_redis,
        shares=recalled.share,
        on_recall=recalled.record,
    )
    service = RetrievalService(embedders, collections, reports, kept, watchers.observe)
    hot = CandidateCache(TieredCache(user_redis, capacity=chosen.hot_lists), touchings)
    recommender = RecommendationService(
        collections,
        read_policies(Path(chosen.policies)) if chosen.policies else default_policies(),
        UserStates(user_redis, Durability(user_redis, chosen.log_replicas)) if user_redis else None,
        hot,
        reports,
        store,
        observe=watchers.observe,
    )

    async def load(snapshot: SnapshotRef) -> ServedCollection:
        _, shards, learned = await asyncio.gather(
            _make_log(logs, snapshot.collection),
            hosting.prepare(snapshot),
            asyncio.to_thread(load_behaviour_model, store, snapshot),
        )
        served = ServedCollection(snapshot, shards, learned)
        await touchings.follow(snapshot)
        await hot.prewarm(served, chosen.hot_lists)
        return served

    canaries = CanaryController(store, collections, load, lambda *key: follower.forget(*key))
    follower = AliasFollower(
        store,
        chosen.collection_names(),
        collections.loaded,
        LifecycleHooks(load=load, unload=hosting.release),
        poll_s=chosen.alias_poll_s,
        on_record=canaries.update,
    )

    async def ready() -> None:
        await follower.start()
        watchers.start()

    async def close() -> None:
        await canaries.close()
        await follower.close()
        await watchers.close()
        await hot.close()
        if kept is not None:
            await kept.close()
        await touchings.close()
        await hosting.close()
        if logs is not None:
            await logs.close()
        if user_redis is not None:
            await user_redis.aclose()
        for client in embedding.values():
            await client.close()

    await serving.serve(
        chosen,
        [
            serving.Registration(
                "nearline.v1.RetrievalService",
                lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(
                    RetrievalServicer(service, recommender, writer), server
                ),
            ),
            serving.Registration(
                "nearline.v1.AdminService",
                lambda server: admin_pb2_grpc.add_AdminServiceServicer_to_server(
                    AdminServicer(
                        store,
                        collections,
                        follower.desired_states,
                        LiveReporter(store, logs, hosting),
                        canaries,
                    ),
                    server,
                ),
            ),
        ],
        ready=ready,
        close=close,
    )


class _Backend(NamedTuple):
    """What holds the shards; check: what it can hold of a change, see `Writer`."""

    hosting: ShardProvider
    check: CheckChange | None = None


def _make_backend(
    chosen: RouterSettings,
    store: Store,
    logs: ChangeLogs | None,
    embedders: Embedders | None,
    redis: Redis | None,
) -> _Backend:
    if chosen.shards:
        return _Backend(RemoteShardProvider(parse_topology(chosen.shards), chosen.shard_wait_s))
    # Imported late: a router without shards of its own runs where faiss is not installed.
    from retrieval.live.live_changes import LiveChanges

    live = LiveChanges(store, logs, embedders=embedders, allow_stale=chosen.allow_stale)
    if chosen.backend == "milvus":
        # Its client is an extra that others do without.
        from retrieval.milvus.open_client import open_client

        client = open_client(chosen.milvus_uri, chosen.milvus_token)
        from retrieval.milvus.live_snapshots import LiveSnapshots
        from retrieval.milvus.provider import MilvusShardProvider

        in_milvus = MilvusShardProvider(
            store, client, live=LiveSnapshots(store, client, live, redis)
        )
        return _Backend(in_milvus, in_milvus.check)
    from retrieval.shards.local_provider import LocalShardProvider

    headroom = chosen.load_headroom
    return _Backend(LocalShardProvider(store, chosen.thread_count(), headroom=headroom, live=live))


async def _make_log(logs: ChangeLogs | None, collection: str) -> None:
    """Sees to it that a collection has a change log before anybody can change it.

    Shard servers may not write to the store, where its name has to stand.
    """
    if logs is not None:
        # Where it cannot be had now, those who need it say so.
        with contextlib.suppress(NearlineError):
            await logs.log(collection).state()


if __name__ == "__main__":
    serving.use_batch_scheduling()
    serving.run(main(sys.argv[1:]), "retrieval")
