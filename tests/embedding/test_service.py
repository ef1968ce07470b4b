"""The domain object: what it refuses, what it reports, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from embedding.service import EmbedCall, EmbeddingService
from embedding.settings import EmbeddingSettings
from nearline.contract import Lane, TextRole
from nearline.errors import DeadlineExceeded, InvalidRequest, Overloaded, SnapshotMismatch
from tests.embedding.fakes import FakeBackend, expected, word_model

LIMITS = EmbeddingSettings(max_texts=4, max_characters=200, stream_read_ahead_texts=4)


@asynccontextmanager
async def serving(
    folder: Path, backend: FakeBackend | None = None, *, query_prompt: str = "", rate: float = 0.0
) -> AsyncIterator[EmbeddingService]:
    backend = backend or FakeBackend()
    model = word_model(folder / "m", query_prompt=query_prompt)
    service = EmbeddingService(model, backend, LIMITS, tokens_per_s=rate)
    await service.start()
    try:
        yield service
    finally:
        backend.release()
        await service.close()


def ids(*words: int) -> list[int]:
    return [2, *(word + 4 for word in words), 3]


async def test_vectors_tokens_and_truncation_are_reported_per_text(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        reply = await service.embed(["w1 w2", " ".join(f"w{n}" for n in range(1, 11)), "w5"])
    assert reply.vectors.dtype == np.float32 and reply.vectors.shape == (3, 4)
    assert reply.tokens.tolist() == [4, 12, 3]
    assert reply.truncated.tolist() == [False, True, False]
    # Eight tokens are read: six words between [CLS] and [SEP].
    for vector, words in zip(reply.vectors, ([1, 2], range(1, 7), [5]), strict=True):
        np.testing.assert_array_equal(vector, expected(ids(*words)))


def counted(name: str, **labels: str) -> float:
    labels |= {"model": "embedder", "lane": Lane.BULK.value}
    return REGISTRY.get_sample_value(f"nearline_embedding_{name}", labels) or 0.0


def all_counted() -> list[float]:
    stages = ("tokenize", "queue", "inference")
    return [
        counted("texts_total"),
        counted("truncated_texts_total"),
        *(counted("stage_seconds_count", stage=stage) for stage in stages),
    ]


async def test_texts_truncated_texts_and_times_are_counted_by_lane(tmp_path: Path) -> None:
    before = all_counted()
    async with serving(tmp_path) as service:
        await service.embed(
            ["w1 w2", " ".join(f"w{n}" for n in range(1, 11)), "w5"], lane=Lane.BULK
        )
        await service.embed(["w1"])
    assert np.subtract(all_counted(), before).tolist() == [3, 1, 1, 1, 1]


async def test_only_a_text_longer_than_the_model_reads_is_reported_as_truncated(
    tmp_path: Path,
) -> None:
    # Eight tokens are read: six words between [CLS] and [SEP].
    texts = [" ".join(f"w{n}" for n in range(words)) for words in (5, 6, 7)]
    async with serving(tmp_path) as service:
        reply = await service.embed(texts)
    assert reply.tokens.tolist() == [7, 8, 9]
    assert reply.truncated.tolist() == [False, False, True]


async def test_fewer_dimensions_are_the_first_ones_at_unit_length(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        whole = (await service.embed(["w1 w2"])).vectors[0]
        short = (await service.embed(["w1 w2"], dimensions=2)).vectors[0]
        same = (await service.embed(["w1 w2"], dimensions=4)).vectors[0]
    np.testing.assert_allclose(short, whole[:2] / np.linalg.norm(whole[:2]), rtol=1e-6)
    assert np.linalg.norm(short) == pytest.approx(1.0)
    np.testing.assert_array_equal(same, whole)


async def test_the_prompt_of_the_role_is_put_before_the_text(tmp_path: Path) -> None:
    async with serving(tmp_path, query_prompt="w9 ") as service:
        query = await service.embed(["w1"], TextRole.QUERY)
        document = await service.embed(["w1"], TextRole.DOCUMENT)
    np.testing.assert_array_equal(query.vectors[0], expected(ids(9, 1)))
    np.testing.assert_array_equal(document.vectors[0], expected(ids(1)))


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        (["w1", ""], "texts[1]", "empty or only white space"),
        (["w1", "w2", " \t\n\u3000"], "texts[2]", "empty or only white space"),
        (["x" * 201], "texts[0]", "201 characters, 200 are allowed"),
        (["w1", "a\ud800b"], "texts[1]", "lone surrogate at position 1"),
        ([], "texts", "0 texts; send 1..4"),
        (["w1"] * 5, "texts", "5 texts; send 1..4"),
    ],
)
async def test_a_bad_text_is_refused_by_its_index(
    tmp_path: Path, texts: list[str], field: str, words: str
) -> None:
    async with serving(tmp_path) as service:
        with pytest.raises(InvalidRequest, match=words) as caught:
            await service.embed(texts)
    assert caught.value.field == field


@pytest.mark.parametrize("dimensions", [0, 5])
async def test_dimensions_out_of_range_are_refused(tmp_path: Path, dimensions: int) -> None:
    async with serving(tmp_path) as service:
        with pytest.raises(InvalidRequest, match=r"1\.\.4 are served"):
            await service.embed(["w1"], dimensions=dimensions)


async def test_another_fingerprint_is_refused_naming_both(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        mine = (await service.info()).fingerprint
        await service.embed(["w1"], expected_fingerprint=mine)
        with pytest.raises(SnapshotMismatch, match=f"{mine}.* expects f00; .*rebuild"):
            await service.embed(["w1"], expected_fingerprint="f00")


async def test_a_timeout_ends_the_wait_in_embedded_use_too(tmp_path: Path) -> None:
    backend = FakeBackend()
    async with serving(tmp_path, backend) as service:
        backend.hold()
        with pytest.raises(DeadlineExceeded, match="not embedded within"):
            await service.embed(["w1"], timeout_s=0.05)


async def test_what_is_late_and_what_is_given_up_are_counted_apart(tmp_path: Path) -> None:
    def dropped() -> list[float]:
        return [
            counted("dropped_texts_total", reason=reason) for reason in ("expired", "cancelled")
        ]

    backend, before = FakeBackend(), dropped()
    async with serving(tmp_path, backend) as service:
        backend.hold()
        first = asyncio.create_task(service.embed(["w1"], lane=Lane.BULK))
        assert await asyncio.to_thread(backend.entered.acquire, timeout=20)
        with pytest.raises(DeadlineExceeded):
            await service.embed(["w2"], lane=Lane.BULK, timeout_s=0.05)
        given_up = asyncio.create_task(service.embed(["w3", "w4"], lane=Lane.BULK))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(given_up, 0.2)
        backend.release()
        await first
        assert np.subtract(dropped(), before).tolist() == [1, 2]


async def test_what_cannot_be_done_in_time_is_refused_before_it_is_tokenised(
    tmp_path: Path,
) -> None:
    backend = FakeBackend()
    async with serving(tmp_path, backend, rate=1.0) as service:
        backend.hold()
        first = asyncio.create_task(service.embed(["w1 w2 w3"], lane=Lane.BULK))
        assert await asyncio.to_thread(backend.entered.acquire, timeout=20)
        with pytest.raises(Overloaded) as caught:
            await service.embed(["w1"], timeout_s=2.0)
        backend.release()
        await first
    assert caught.value.retry_after_s == pytest.approx(3.0, abs=0.1)


async def calls(batches: Sequence[list[str]]) -> AsyncIterator[EmbedCall]:
    for texts in batches:
        yield EmbedCall(texts=texts)


async def test_a_stream_answers_in_order(tmp_path: Path) -> None:
    batches = [[f"w{number}", f"w{number} w1"] for number in range(30)]
    async with serving(tmp_path, FakeBackend(slots=2)) as service:
        replies = [reply async for reply in service.embed_stream(calls(batches))]
    assert len(replies) == 30
    for number, reply in enumerate(replies):
        np.testing.assert_array_equal(reply.vectors[0], expected(ids(number)))


async def test_a_stream_is_counted_as_bulk(tmp_path: Path) -> None:
    before = counted("texts_total")
    async with serving(tmp_path) as service:
        async for _ in service.embed_stream(calls([["w1"], ["w2", "w3"]])):
            pass
    assert counted("texts_total") == before + 3


async def test_a_stream_whose_caller_waits_for_each_answer_goes_on(tmp_path: Path) -> None:
    answered = asyncio.Semaphore(1)

    async def one_by_one() -> AsyncIterator[EmbedCall]:
        for number in range(5):
            await answered.acquire()
            yield EmbedCall(texts=[f"w{number}"])

    async with serving(tmp_path) as service, asyncio.timeout(20):
        async for _ in service.embed_stream(one_by_one()):
            answered.release()


async def test_a_stream_reads_ahead_no_further_than_it_may(tmp_path: Path) -> None:
    read: list[int] = []

    async def counted() -> AsyncIterator[EmbedCall]:
        for number in range(20):
            read.append(number)
            yield EmbedCall(texts=["w1", "w2"])

    async with serving(tmp_path) as service:
        stream = service.embed_stream(counted())
        for answers in range(1, 5):
            await anext(stream)
            for _ in range(20):
                await asyncio.sleep(0)
            # The answer that was not taken yet and a batch in work, of two texts each; one waits.
            assert len(read) <= answers + 2
        await stream.aclose()


async def test_a_bad_batch_of_a_stream_comes_after_the_answers_before_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        stream = service.embed_stream(calls([["w1"], [""], ["w2"]]))
        await anext(stream)
        with pytest.raises(InvalidRequest, match="empty"):
            await anext(stream)
