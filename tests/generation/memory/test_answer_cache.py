"""Tests which answers are cached, and when a cached one is reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generation.evidence.calibration import CalibrationStore
from generation.evidence.evidence_reader import EvidenceReader
from generation.memory.answer_cache import AnswerKey, CachedAnswer
from generation.model_set import open_model_set as models_opened
from generation.service import GenerationService
from generation.settings import GenerationSettings
from nearline import contract as c
from nearline.errors import NotReady
from nearline.filters import Equals
from nearline.v1 import snapshot_pb2
from retrieval.protocols.watermark import Watermark
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

ASKED = c.Question(text="the kettle boils water", refuse=False, filter=Equals("kind", "manual"))


class Kept:
    """A cache in memory."""

    def __init__(self) -> None:
        self.answers: dict[str, CachedAnswer] = {}

    async def get(self, key: AnswerKey) -> CachedAnswer | None:
        return self.answers.get(key.digest())

    async def put(self, key: AnswerKey, answer: CachedAnswer) -> None:
        self.answers[key.digest()] = answer


class Altered:
    """A retriever whose replies are altered."""

    def __init__(
        self,
        retriever: c.Retriever,
        *,
        found: Callable[[c.SearchReply], c.SearchReply] = lambda reply: reply,
        item: Callable[[c.Item], c.Item] = lambda item: item,
        filtered: bool = True,
    ) -> None:
        self._retriever = retriever
        self._found, self._item, self._filtered = found, item, filtered
        self.least: list[bytes] = []

    async def search(
        self,
        query: c.Query,
        options: c.SearchOptions,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        self.least.append(options.min_watermark)
        used = replace(
            options, min_watermark=b"", filter=options.filter if self._filtered else None
        )
        reply = await self._retriever.search(
            query, used, collection=collection, timeout_s=timeout_s
        )
        return self._found(reply)

    async def get_items(
        self,
        ids: Sequence[str],
        payload: frozenset[c.PayloadField],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        self.least.append(min_watermark)
        reply = await self._retriever.get_items(
            ids, payload, collection=collection, timeout_s=timeout_s
        )
        return replace(reply, items=[self._item(item) for item in reply.items])


async def ask(
    altered: Altered,
    kept: Kept,
    embedder: WordEmbedder | Away,
    calibrations: CalibrationStore | None = None,
    asked: c.Question = ASKED,
    **reader: object,
) -> list[c.AnswerEvent]:
    service = GenerationService(
        altered,  # type: ignore[arg-type]
        EvidenceReader(altered, embedder, **reader),  # type: ignore[arg-type]
        calibrations=calibrations,
        cache=kept,  # type: ignore[arg-type]
    )
    return [event async for event in service.generate(asked, timeout_s=20.0)]


def is_cached(events: Sequence[c.AnswerEvent]) -> bool:
    done = events[-1]
    assert isinstance(done, c.Done)
    return done.served_by.source is c.Source.CACHE


def missing(reply: c.SearchReply) -> c.SearchReply:
    seen = c.Coverage(shards_answered=1, shards_total=2, missing_shards=(1,))
    return replace(reply, info=replace(reply.info, coverage=seen))


def lowered(reply: c.SearchReply) -> c.SearchReply:
    rung = c.ServedBy(source=c.Source.FALLBACK, rung="lexical", reason="no embedding service")
    return replace(reply, info=replace(reply.info, served_by=rung))


@pytest.mark.parametrize("found", [missing, lowered])
async def test_an_answer_from_an_incomplete_search_is_not_cached(
    store: Path,
    embedder: WordEmbedder,
    found: Callable[[c.SearchReply], c.SearchReply],
) -> None:
    kept = Kept()
    async with opened(OBJECT, store, embedder) as retriever:
        await ask(Altered(retriever, found=found), kept, embedder)
        assert not kept.answers
        await ask(Altered(retriever), kept, embedder)
        assert len(kept.answers) == 1
        assert is_cached(await ask(Altered(retriever), kept, embedder))


class Away:
    """An embedder and a reranker that do not answer until they may."""

    def __init__(self, embedder: WordEmbedder, *, embeds: bool, reranks: bool) -> None:
        self._embedder = embedder
        self.embeds, self.reranks = embeds, reranks

    async def embed(self, *arguments: Any, **more: Any) -> c.Embeddings:
        if not self.embeds:
            raise NotReady("the embedding service is away")
        return await self._embedder.embed(*arguments, **more)

    async def rerank(self, query: str, texts: Sequence[str], **more: Any) -> c.RerankScores:
        if not self.reranks:
            raise NotReady("the embedding service is away")
        return c.RerankScores([0.0 for _ in texts], c.ServedBy())


@pytest.mark.parametrize(("embeds", "reranks"), [(False, True), (True, False)])
async def test_an_answer_from_degraded_evidence_is_not_cached(
    store: Path, embedder: WordEmbedder, embeds: bool, reranks: bool
) -> None:
    kept, away = Kept(), Away(embedder, embeds=embeds, reranks=reranks)

    async def asked() -> c.ServedBy:
        events = await ask(Altered(retriever), kept, away, reranker=away, rerank_chunks=5)
        assert isinstance(events[-1], c.Done)
        return events[-1].served_by

    async with opened(OBJECT, store, embedder) as retriever:
        assert "is away" in (await asked()).reason
        away.embeds = away.reranks = True
        assert (await asked()).source is c.Source.LIVE
        assert (await asked()).source is c.Source.CACHE


async def test_an_answer_is_written_again_if_its_sources_cannot_be_checked(
    store: Path, embedder: WordEmbedder
) -> None:
    def fail(item: c.Item) -> c.Item:
        raise NotReady("the shard is away")

    kept = Kept()
    async with opened(OBJECT, store, embedder) as retriever:
        first = await ask(Altered(retriever), kept, embedder)
        assert is_cached(await ask(Altered(retriever), kept, embedder))
        again = await ask(Altered(retriever, item=fail), kept, embedder)
    assert not is_cached(again)
    assert [event for event in again if isinstance(event, c.Delta)] == [
        event for event in first if isinstance(event, c.Delta)
    ]


async def test_an_answer_is_not_reused_if_the_filter_rejects_a_source(
    store: Path, embedder: WordEmbedder
) -> None:
    kept = Kept()
    async with opened(OBJECT, store, embedder) as retriever:
        await ask(Altered(retriever), kept, embedder)
        moved = Altered(retriever, item=lambda item: replace(item, attributes={"kind": "story"}))
        assert not is_cached(await ask(moved, kept, embedder))


async def test_a_cached_answer_is_not_reused_by_those_who_wrote_since(
    store: Path, embedder: WordEmbedder
) -> None:
    def mark(position: int, log_id: str = "a" * 32) -> bytes:
        return Watermark(log_id).advanced({3: position}).encode()

    def at(watermark: bytes) -> Callable[[c.SearchReply], c.SearchReply]:
        return lambda reply: replace(reply, info=replace(reply.info, watermark=watermark))

    kept = Kept()
    async with opened(OBJECT, store, embedder) as retriever:

        async def reused(served: bytes, least: bytes) -> bool:
            altered = Altered(retriever, found=at(served))
            asked = replace(ASKED, min_watermark=least)
            events = await ask(altered, kept, embedder, asked=asked)
            assert set(altered.least) == {least}
            return is_cached(events)

        assert not await reused(b"", b"")
        assert not await reused(mark(5), mark(5))
        assert await reused(mark(7), mark(4)) and await reused(mark(7), b"")
        assert not await reused(mark(7), mark(6))
        assert not await reused(mark(1, "b" * 32), mark(1, "b" * 32))


class Manifests:
    """Manifests without calibrations; the first read fails."""

    def __init__(self) -> None:
        self.asked = 0

    async def snapshot(self, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        self.asked += 1
        if self.asked == 1:
            raise NotReady("the router is busy")
        return snapshot_pb2.Manifest()


async def test_an_answer_without_the_calibration_of_its_snapshot_is_not_cached(
    store: Path, embedder: WordEmbedder
) -> None:
    kept, calibrations = Kept(), CalibrationStore(Manifests())
    async with opened(OBJECT, store, embedder) as retriever:
        await ask(Altered(retriever), kept, embedder, calibrations)
        assert not kept.answers
        await ask(Altered(retriever), kept, embedder, calibrations)
        assert len(kept.answers) == 1


class Still:
    """A reranker that keeps the order."""

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        return [0.0 for _ in texts]


async def test_an_answer_is_cached_per_settings(store: Path, embedder: WordEmbedder) -> None:
    kept = Kept()
    async with opened(OBJECT, store, embedder) as retriever:
        for chunks in (0, 5, 20):
            for repeated in (False, True):
                events = await ask(
                    Altered(retriever), kept, embedder, reranker=Still(), rerank_chunks=chunks
                )
                assert is_cached(events) is repeated


@pytest.mark.parametrize(
    "change", [{"prompt_tokens": 300}, {"large_context": 8_000}, {"check_entailment": True}]
)
async def test_prompt_and_checks_are_part_of_the_version(
    change: dict[str, object],
) -> None:
    given: dict[str, object] = {"large": "m@http://127.0.0.1:9/v1"}
    async with (
        models_opened(GenerationSettings.load(given)) as before,
        models_opened(GenerationSettings.load(given)) as same,
        models_opened(GenerationSettings.load(given | change)) as after,
    ):
        assert before.version == same.version != after.version


async def test_hits_outside_the_filter_never_reach_a_caller(
    store: Path, embedder: WordEmbedder
) -> None:
    async with opened(OBJECT, store, embedder) as retriever:
        events = await ask(Altered(retriever, filtered=False), Kept(), embedder)
    evidence = events[0]
    assert isinstance(evidence, c.Evidence)
    assert {hit.id for hit in evidence.documents} == {"kettle", "lamp"}
    # Attributes for the rights check would name other readers.
    assert all(hit.attributes is None for hit in evidence.documents)
