"""Queue, limits and errors of pair scoring, over an engine whose scores are known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from embedding.pair_scorer import PairScorer, label_columns
from embedding.service import EmbeddingService
from embedding.settings import EmbeddingSettings
from nearline.contract import Lane
from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotReady,
    Overloaded,
    SettingsError,
    Unsupported,
)
from tests.embedding.cross_encoders import FakeEngine, pair_model
from tests.embedding.fakes import FakeBackend, word_model

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK
# "a" and "b" with three special tokens.
PAIR_TOKENS = 5


@asynccontextmanager
async def scoring(engine: FakeEngine, **limits: int) -> AsyncIterator[PairScorer]:
    scorer = PairScorer(
        pair_model(),
        engine,
        columns=(1, 0),
        max_tokens=64,
        setting="reranker",
        settings=EmbeddingSettings(**limits),
    )
    scorer.batcher.start()
    try:
        yield scorer
    finally:
        engine.release()
        await scorer.batcher.close()


async def busy(engine: FakeEngine, scorer: PairScorer) -> asyncio.Task[object]:
    """Holds the model in the middle of a batch."""
    engine.hold()
    task: asyncio.Task[object] = asyncio.create_task(scorer.score(["a"], ["held"], BULK, None))
    assert await asyncio.to_thread(engine.entered.acquire, timeout=20)
    return task


async def test_every_pair_gets_its_own_numbers_in_its_place_and_in_the_columns_asked_for() -> None:
    engine = FakeEngine()
    seconds = ["w " * number for number in (9, 1, 30, 2, 50, 1)]
    async with scoring(engine, token_budget=64) as scorer:
        rows = (await scorer.score(["q"] * 5 + ["qq"], seconds, BULK, None)).rows
    assert rows.dtype == np.float32
    assert rows.tolist() == [[100, 18], [100, 2], [100, 60], [100, 4], [100, 100], [200, 2]]
    # Within the budget, and like lengths together: one long pair does not pad the short ones.
    assert sorted(len(batch) for batch in engine.batches) == [1, 1, 4]
    for batch in engine.batches:
        assert len(batch) * max(len(text) // 2 + 4 for text in batch) <= 64


async def test_pairs_and_times_are_counted_by_lane() -> None:
    def counted() -> list[float]:
        labels = {"model": "reranker", "lane": BULK.value}
        stages = [{**labels, "stage": one} for one in ("tokenize", "queue", "inference")]
        found = [
            REGISTRY.get_sample_value("nearline_embedding_texts_total", labels),
            REGISTRY.get_sample_value("nearline_embedding_truncated_texts_total", labels),
            *(
                REGISTRY.get_sample_value("nearline_embedding_stage_seconds_count", stage)
                for stage in stages
            ),
        ]
        return [value or 0.0 for value in found]

    before = counted()
    async with scoring(FakeEngine()) as scorer:
        await scorer.score(["q"] * 3, ["a", "b", "c"], BULK, None)
        await scorer.score(["q"], ["a"], INTERACTIVE, None)
    assert np.subtract(counted(), before).tolist() == [3, 0, 1, 1, 1]


async def queued(scorer: PairScorer) -> tuple[asyncio.Task[object], Overloaded]:
    """Fills the queue with a call, and gives the refusal of another that shows that it is full."""
    calls: list[asyncio.Task[object]] = [
        asyncio.create_task(scorer.score(["a"] * 2, ["b"] * 2, BULK, None)) for _ in range(2)
    ]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    error = done.pop().exception()
    assert isinstance(error, Overloaded)
    return waiting.pop(), error


async def test_a_full_queue_refuses_with_the_time_to_come_back() -> None:
    engine = FakeEngine()
    async with scoring(engine, max_queued_tokens=2 * PAIR_TOKENS) as scorer:
        first = await busy(engine, scorer)
        waiting, error = await queued(scorer)
        # The other lane is not shut out.
        query = asyncio.create_task(scorer.score(["a"], ["q"], INTERACTIVE, None))
        engine.release()
        await asyncio.gather(first, waiting, query)
    assert error.retry_after_s is not None and error.retry_after_s > 0


async def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    engine = FakeEngine()
    async with scoring(engine) as scorer:
        # The rate is measured: five tokens in no less than the time that the batch was held.
        first = await busy(engine, scorer)
        with pytest.raises(DeadlineExceeded, match="not scored within"):
            await scorer.score(["a"], ["b"], BULK, 0.05)
        engine.release()
        await first
        before = len(engine.batches)
        with pytest.raises(Overloaded, match="raise the timeout"):
            await scorer.score(["a"] * 900, ["b " * 60] * 900, BULK, 5.0)
        assert len(engine.batches) == before


async def test_pairs_of_a_caller_who_leaves_or_is_late_do_not_run() -> None:
    engine = FakeEngine()
    async with scoring(engine, max_queued_tokens=2 * PAIR_TOKENS) as scorer:
        first = await busy(engine, scorer)
        gone, _ = await queued(scorer)
        gone.cancel()
        await asyncio.wait([gone])
        # There is room again, and again once its time is up.
        with pytest.raises(DeadlineExceeded):
            await scorer.score(["a"] * 2, ["late"] * 2, BULK, 0.2)
        stays = asyncio.create_task(scorer.score(["a"] * 2, ["stays"] * 2, BULK, None))
        engine.release()
        await asyncio.gather(first, stays)
    assert engine.batches == [["held"], ["stays"] * 2]


async def test_a_pair_that_the_model_fails_on_is_named_and_the_others_are_not_hurt() -> None:
    engine = FakeEngine(poison="bad")
    async with scoring(engine) as scorer:
        bad = asyncio.create_task(scorer.score(["a"] * 3, ["x", "bad", "y"], BULK, None))
        good = asyncio.create_task(scorer.score(["a"], ["good"], BULK, None))
        with pytest.raises(InternalError, match=r"texts\[1\]") as caught:
            await bad
        assert (await good).rows[0, 1] == 4
    assert caught.value.field == "texts[1]"


async def test_closing_fails_what_waits() -> None:
    engine = FakeEngine()
    async with scoring(engine, max_queued_tokens=2 * PAIR_TOKENS) as scorer:
        first = await busy(engine, scorer)
        waiting, _ = await queued(scorer)
        closing = asyncio.create_task(scorer.batcher.close())
        await asyncio.sleep(0)
        engine.release()
        await asyncio.gather(first, closing)
        with pytest.raises(NotReady, match="stopping"):
            await waiting


@asynccontextmanager
async def serving(folder: Path, **limits: int) -> AsyncIterator[EmbeddingService]:
    settings = EmbeddingSettings(**limits)

    def scorer(setting: str, columns: tuple[int, ...]) -> PairScorer:
        return PairScorer(
            pair_model(f"{setting} model"),
            FakeEngine(),
            columns=columns,
            max_tokens=64,
            setting=setting,
            settings=settings,
        )

    service = EmbeddingService(
        word_model(folder / "m"),
        FakeBackend(),
        settings,
        reranker=scorer("reranker", (0,)),
        entailment=scorer("entailment", (1, 0)),
    )
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def test_pairs_run_in_the_lane_that_their_caller_names(tmp_path: Path) -> None:
    def counted() -> list[float]:
        labels = [{"model": one, "lane": BULK.value} for one in ("reranker", "entailment")]
        return [
            REGISTRY.get_sample_value(f"nearline_embedding_{name}", one | more) or 0.0
            for one in labels
            for name, more in (("tokens_total", {}), ("stage_seconds_count", {"stage": "queue"}))
        ]

    before = counted()
    async with serving(tmp_path) as service:
        await service.rerank("a", ["b"])
        await service.entail(["a"], ["b"])
        assert counted() == before
        await service.rerank("a", ["b"], lane=BULK)
        await service.entail(["a"], ["b"], lane=BULK)
    assert all(now > then for now, then in zip(counted(), before, strict=True))


async def test_the_service_scores_judges_and_tells_its_models(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert await service.rerank("q", ["four", "7 signs", "é"]) == [4, 7, 1]
        judged = await service.entail(["p", "pp"], ["h", "hhh"])
        info = await service.info()
    assert (judged.entailment, judged.contradiction) == ([100, 200], [1, 3])
    assert judged.fingerprint == info.entailment_fingerprint == info.reranker_fingerprint
    assert (info.reranker, info.entailment) == ("reranker model", "entailment model")


@pytest.mark.parametrize(
    ("query", "texts", "field", "words"),
    [
        ("", ["t"], "query", "empty or only white space"),
        ("q\udc00", ["t"], "query", "lone surrogate at position 1"),
        ("q", [], "texts", "0 texts; send 1..4"),
        ("q", ["t"] * 5, "texts", "5 texts; send 1..4"),
        ("q", ["t", "\u3000"], "texts[1]", "empty or only white space"),
        ("q", ["t", "t", "a\ud800"], "texts[2]", "lone surrogate at position 1"),
        ("q", ["t" * 201], "texts[0]", "201 characters, 200 are allowed"),
    ],
)
async def test_a_bad_text_to_score_is_refused_by_its_place(
    tmp_path: Path, query: str, texts: list[str], field: str, words: str
) -> None:
    async with serving(tmp_path, max_texts=4, max_characters=200) as service:
        with pytest.raises(InvalidRequest, match=words) as caught:
            await service.rerank(query, texts)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("premises", "hypotheses", "field", "words"),
    [
        (["p"], ["h", "h"], "hypotheses", "1 premises and 2 hypotheses"),
        ([], [], "premises", "0 texts; send 1..4"),
        (["p"] * 5, ["h"] * 5, "premises", "5 texts; send 1..4"),
        (["p", " "], ["h", "h"], "premises[1]", "empty"),
        (["p", "p"], ["\udfff", "h"], "hypotheses[0]", "lone surrogate"),
    ],
)
async def test_a_bad_pair_to_judge_is_refused_by_its_place(
    tmp_path: Path, premises: list[str], hypotheses: list[str], field: str, words: str
) -> None:
    async with serving(tmp_path, max_texts=4) as service:
        with pytest.raises(InvalidRequest, match=words) as caught:
            await service.entail(premises, hypotheses)
    assert caught.value.field == field


async def test_without_a_model_the_error_names_the_setting(tmp_path: Path) -> None:
    service = EmbeddingService(word_model(tmp_path / "m"), FakeBackend(), EmbeddingSettings())
    with pytest.raises(Unsupported, match="NEARLINE_EMBEDDING_RERANKER"):
        await service.rerank("q", ["t"])
    with pytest.raises(Unsupported, match="--entailment"):
        await service.entail(["p"], ["h"])
    info = await service.info()
    assert (info.reranker, info.reranker_fingerprint, info.entailment) == ("", "", "")


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (("contradiction", "entailment", "neutral"), (1, 0)),
        (("entailment", "neutral", "contradiction"), (0, 2)),
        (("contradiction", "not_entailment", "entailment"), (2, 0)),
    ],
)
def test_labels_of_entailment_are_found_by_name(
    labels: tuple[str, ...], columns: tuple[int, ...]
) -> None:
    assert label_columns("entailment", labels, "m") == columns


@pytest.mark.parametrize(
    ("setting", "labels", "words"),
    [
        ("reranker", ("no", "yes"), r"2 labels \(no, yes\), 1 is needed"),
        ("entailment", ("score",), "has the labels score; needed are entailment, contradiction"),
        ("entailment", ("entailment", "not_entailment"), "id2label"),
        ("entailment", ("entailment", "contradiction"), "neutral or not_entailment"),
        ("entailment", ("label_0", "label_1", "label_2"), "label_0, label_1, label_2"),
    ],
)
def test_other_labels_are_an_error(setting: str, labels: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        label_columns(setting, labels, "m")


def test_no_model_is_loaded_where_none_is_set() -> None:
    assert PairScorer.load("reranker", EmbeddingSettings()) is None
