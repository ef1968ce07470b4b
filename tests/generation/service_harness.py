"""Runs a complete service over gRPC, with a store, a model behind HTTP, Redis and callers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from generation import model_set
from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.sentence_judge import JudgeService, SentenceJudge
from generation.memory.answer_cache import AnswerCache
from generation.memory.conversation import ConversationMemory
from generation.memory.sessions import SessionStore
from generation.memory.token_budgets import TokenBudgets, TokenLimits
from generation.service import GenerationService
from generation.settings import GenerationSettings
from nearline import contract as c
from nearline.access.caller_file import CallerFile
from nearline.access.readers import ReaderFilter
from nearline.clients import GenerationClient
from nearline.serving import running
from retrieval.redis_client.connection import connect
from retrieval.writes.feed_block import FeedBlock, redis_resource
from retrieval.writes.memory_quota import MemoryQuota
from tests.generation.conftest import DIM, registration
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

ASKED = "how long does the kettle take to boil water?"


class Came(NamedTuple):
    """The events of an answer."""

    events: Sequence[c.AnswerEvent]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, c.Delta))

    @property
    def citations(self) -> list[c.Citation]:
        return [event for event in self.events if isinstance(event, c.Citation)]

    @property
    def usage(self) -> c.Usage:
        return next(event for event in self.events if isinstance(event, c.Usage))

    @property
    def done(self) -> c.Done:
        assert isinstance(self.events[-1], c.Done), self.events[-1]
        return self.events[-1]

    @property
    def refusal(self) -> c.Refusal:
        assert isinstance(self.events[-1], c.Refusal), self.events[-1]
        return self.events[-1]


@contextlib.asynccontextmanager
async def asking(
    store: Path,
    large: str = "",
    *,
    redis: str = "",
    readers: ReaderFilter | None = None,
    callers: CallerFile | None = None,
    limits: TokenLimits | None = None,
    embedder: c.Embedder | None = None,
    **given: object,
) -> AsyncIterator[str]:
    """Serves answers from a store on a loopback address, with a model at `large`."""
    given |= {"large": f"m@{large}"} if large else {}
    settings = GenerationSettings.load(given)
    embedder = embedder or WordEmbedder(DIM)
    async with contextlib.AsyncExitStack() as stack:
        retriever = await stack.enter_async_context(opened(OBJECT, store, embedder))
        client = quota = None
        if redis:
            # Not about time: what is written must be found on a busy machine, too.
            client = connect(redis, timeout_s=10.0)
            stack.push_async_callback(client.aclose)
            block = FeedBlock([redis_resource(client, 0.8)])
            stack.push_async_callback(block.close)
            await block.start()
            quota = MemoryQuota(client, block, 86_400)
        service = GenerationService(
            retriever,
            EvidenceReader(
                retriever,
                embedder,
                # Of a real service; a stand-in has no judge.
                judge=SentenceJudge(embedder) if isinstance(embedder, JudgeService) else None,
            ),
            models=await stack.enter_async_context(model_set.open_model_set(settings)),
            readers=readers,
            memory=ConversationMemory(SessionStore(client, quota=quota) if client else None),
            cache=AnswerCache(client, 60, quota) if client else None,
            budgets=TokenBudgets(client, limits or TokenLimits()),
        )
        yield await stack.enter_async_context(running([registration(service)], callers=callers))


async def ask(
    address: str, text: str = ASKED, *, timeout_s: float = 20.0, token: str = "", **more: object
) -> Came:
    question = replace(c.Question(text=text, refuse=False), **more)  # type: ignore[arg-type]
    async with GenerationClient(address, token=token) as client:
        return Came([event async for event in client.generate(question, timeout_s=timeout_s)])
