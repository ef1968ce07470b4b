"""The ingest service: `python -m index_builder.ingest --redis URL`.

It is stateless; any number of instances may run.
"""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import asyncio
import logging
import sys
from collections.abc import Sequence

from index_builder.ingest.janitor import Janitor
from index_builder.ingest.job_store import JobStore
from index_builder.ingest.known_collections import KnownCollections
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.service import IngestService
from index_builder.ingest.servicer import IngestServicer
from index_builder.ingest.settings import IngestSettings
from nearline import serving, settings, telemetry
from nearline.clients import AdminClient
from nearline.errors import SettingsError
from nearline.v1 import ingest_pb2_grpc
from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import Durability
from retrieval.writes.feed_block import FeedBlock, redis_resource

_log = logging.getLogger("index_builder.ingest")
_REDIS_TIMEOUT_S = 10.0


async def main(argv: Sequence[str]) -> None:
    """Serves until the process is asked to stop."""
    chosen = settings.load_from_process(IngestSettings, argv)
    telemetry.configure_logging(chosen.log_level, "ingest")
    if not chosen.redis:
        raise SettingsError(
            "the ingest service needs the Redis that holds its queue; pass --redis URL"
        )
    redis = connect(chosen.redis, timeout_s=_REDIS_TIMEOUT_S, retries=0)
    job_store = JobStore(redis, Durability(redis, chosen.log_replicas), chosen.queue_limits())
    load_stats = LoadStatsReader(redis)
    feed_block = FeedBlock([redis_resource(redis, chosen.feed_block_redis)])
    admin = AdminClient(chosen.retrieval) if chosen.retrieval else None
    known = None if admin is None else KnownCollections(admin)
    service = IngestService(job_store, load_stats, chosen.result_ttl_s, feed_block, known)
    janitor = Janitor(redis, job_store, load_stats, chosen.abandoned_s, chosen.dead_letter_ttl_s)
    tasks: list[asyncio.Task[None]] = []

    async def ready() -> None:
        await feed_block.start()
        tasks.append(asyncio.create_task(janitor.run()))

    async def close() -> None:
        await feed_block.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if admin is not None:
            await admin.close()
        await redis.aclose()

    await serving.serve(
        chosen,
        [
            serving.Registration(
                "nearline.v1.IngestService",
                lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(
                    IngestServicer(service), server
                ),
            )
        ],
        ready=ready,
        stopping=service.stop_watching,
        close=close,
    )


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "ingest")
