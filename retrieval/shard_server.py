"""The shard server: `python -m retrieval.shard_server --store DIR --shard 0,1`."""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import asyncio
import sys
from collections.abc import Sequence

from nearline import serving, settings, status, telemetry
from nearline.clients import EmbeddingClient
from nearline.store.snapshot import Store
from nearline.thread_priority import use_batch_scheduling
from retrieval.blas_threads import use_one_core
from retrieval.changelog.registry import ChangeLogs
from retrieval.embedders.endpoints import Embedders
from retrieval.index.gpu.gpu_pool import open_pool
from retrieval.live.live_changes import LiveChanges
from retrieval.settings import ShardSettings
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.servicer import ShardServicer, registrations
from retrieval.shards.shard_host import ShardHost
from retrieval.shards.topology import parse_addresses
from retrieval.snapshots.aliases import operator_name


async def main(argv: Sequence[str]) -> None:
    """Serves until the process is stopped."""
    config = settings.load_from_process(ShardSettings, argv)
    telemetry.configure_logging(config.log_level, "shard")
    store = Store.open(config.store, config.cache_dir)
    status.hide_place(store.url)
    addresses = parse_addresses(config.embedding, "--embedding")
    embedding = {address: EmbeddingClient(address) for address in addresses}
    logs = ChangeLogs(store, config.redis, who=operator_name()) if config.redis else None
    gpus = await asyncio.to_thread(open_pool, config.device, config.device_memory_bytes)
    shards = LocalShardProvider(
        store,
        config.thread_count(),
        config.numbers(),
        headroom=config.load_headroom,
        live=LiveChanges(
            store,
            None if logs is None else logs.reader,
            embedders=Embedders(embedding) if embedding else None,
            allow_stale=config.allow_stale,
        ),
        gpus=gpus,
    )
    use_one_core()
    host = ShardHost(
        store,
        shards,
        config.collection_names(),
        poll_s=config.alias_poll_s,
        drain_s=config.snapshot_drain_s,
        allow_empty=config.allow_empty,
    )

    async def close() -> None:
        await host.close()
        await shards.close()
        if logs is not None:
            await logs.close()
        for client in embedding.values():
            await client.close()

    await serving.serve(
        config,
        registrations(ShardServicer(host)),
        ready=host.start,
        close=close,
    )


if __name__ == "__main__":
    use_batch_scheduling()
    serving.run(main(sys.argv[1:]), "shard")
