"""The generation service: `python -m generation --retrieval HOST:PORT`."""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from generation import model_set
from generation.evidence.calibration import CalibrationStore
from generation.evidence.embedder_router import EmbedderRouter
from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.sentence_judge import SentenceJudge
from generation.evidence.strictness import StrictnessRules
from generation.memory.answer_cache import AnswerCache
from generation.memory.conversation import ConversationMemory
from generation.memory.sessions import SessionStore
from generation.memory.token_budgets import TokenBudgets, TokenLimits
from generation.service import GenerationService
from generation.servicer import GenerationServicer
from generation.settings import GenerationSettings
from nearline import serving, settings, telemetry
from nearline.access.caller_file import CallerFile
from nearline.access.readers import ReaderFilter
from nearline.clients import AdminClient, EmbeddingClient, RetrievalClient
from nearline.thread_priority import use_batch_scheduling
from nearline.v1 import generation_pb2_grpc
from retrieval.redis_client.connection import connect
from retrieval.shards.topology import parse_addresses
from retrieval.writes.feed_block import FeedBlock, redis_resource
from retrieval.writes.memory_quota import MemoryQuota

# Conversations are refused before the changes of items are, which may fill more of Redis.
_REDIS_SHARE = 0.8


async def main(argv: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT."""
    chosen = settings.load_from_process(GenerationSettings, argv)
    telemetry.configure_logging(chosen.log_level, "generation")
    callers = CallerFile.load(Path(chosen.callers)) if chosen.callers else None
    async with contextlib.AsyncExitStack() as stack:
        retrieval = await stack.enter_async_context(RetrievalClient(chosen.retrieval))
        admin = await stack.enter_async_context(AdminClient(chosen.retrieval))
        addresses = parse_addresses(chosen.embedding, "--embedding")
        clients = {one: await stack.enter_async_context(EmbeddingClient(one)) for one in addresses}
        embedding = clients[addresses[0]] if addresses else None
        # Two serve while a collection moves from one model to another.
        embedder = embedding if len(clients) < 2 else EmbedderRouter(clients)
        redis = cache_redis = None
        if chosen.redis:
            redis = cache_redis = connect(chosen.redis)
            stack.push_async_callback(redis.aclose)
        if chosen.redis_cache:
            cache_redis = connect(chosen.redis_cache)
            stack.push_async_callback(cache_redis.aclose)
        quota = None
        if cache_redis:
            # A Redis of its own for caches may be full; it evicts what is oldest.
            share = 1.0 if chosen.redis_cache else _REDIS_SHARE
            block = FeedBlock([redis_resource(cache_redis, share)])
            stack.push_async_callback(block.close)
            await block.start()
            lifetime_s = max(chosen.session_ttl_s, chosen.answer_ttl_s)
            quota = MemoryQuota(cache_redis, block, lifetime_s)
        service = GenerationService(
            retrieval,
            EvidenceReader(
                retrieval,
                embedder,
                reranker=embedding,
                rerank_chunks=chosen.rerank_chunks,
                judge=None if embedding is None else SentenceJudge(embedding),
            ),
            strictness=StrictnessRules.parse(chosen.strictness),
            models=await stack.enter_async_context(model_set.open_model_set(chosen, embedding)),
            calibrations=CalibrationStore(admin),
            readers=ReaderFilter(chosen.readers_attribute),
            memory=ConversationMemory(
                SessionStore(
                    cache_redis,
                    ttl_s=chosen.session_ttl_s,
                    max_turns=chosen.session_turns,
                    quota=quota,
                )
                if cache_redis
                else None,
                chosen.history_tokens,
            ),
            cache=AnswerCache(cache_redis, chosen.answer_ttl_s, quota)
            if cache_redis and chosen.answer_ttl_s
            else None,
            budgets=TokenBudgets(
                redis,
                TokenLimits(
                    session=chosen.tokens_per_session,
                    tenant_day=chosen.tokens_per_tenant,
                    day=chosen.tokens_per_day,
                ),
            ),
        )

        async def ready() -> None:
            # Nothing is loaded here; each call finds out whether a router answers.
            return None

        await serving.serve(
            chosen,
            [
                serving.Registration(
                    "nearline.v1.GenerationService",
                    lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
                        GenerationServicer(service), server
                    ),
                )
            ],
            ready=ready,
            callers=callers,
        )


if __name__ == "__main__":
    use_batch_scheduling()
    serving.run(main(sys.argv[1:]), "generation")
