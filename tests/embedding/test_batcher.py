"""The batcher over a backend whose vectors are known."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from embedding.backend import PaddedBackend
from embedding.batcher import Batcher
from nearline.access.caller import Caller
from nearline.access.method_guard import acting_for
from nearline.contract import Lane
from nearline.errors import DeadlineExceeded, InternalError, NotReady, Overloaded
from tests.embedding.fakes import FakeBackend, expected

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK
Ids = NDArray[np.int64]
Texts = list[Ids]


def texts(*ids: Sequence[int]) -> Texts:
    return [np.array(one, np.int64) for one in ids]


@asynccontextmanager
async def running(
    backend: FakeBackend,
    budget: int = 64,
    queued: int = 1 << 20,
    rate: float = 0.0,
    clock: Callable[[], float] = lambda: 0.0,
    on_broken: Callable[[], None] | None = None,
) -> AsyncIterator[Batcher[Ids]]:
    batcher = Batcher(
        PaddedBackend(backend),
        budget=budget,
        max_queued_tokens=queued,
        tokens_per_s=rate,
        clock=clock,
        on_broken=on_broken,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        backend.release()
        await batcher.close()


async def busy(backend: FakeBackend, batcher: Batcher[Ids]) -> asyncio.Task[object]:
    """Holds the model in the middle of a batch of one token."""
    backend.hold()
    task: asyncio.Task[object] = asyncio.create_task(batcher.infer(texts([1]), BULK))
    await entered(backend)
    return task


async def entered(backend: FakeBackend) -> None:
    assert await asyncio.to_thread(backend.entered.acquire, timeout=20)


async def settled() -> None:
    """Lets every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


request = st.tuples(
    st.sampled_from(Lane),
    st.lists(st.lists(st.integers(1, 999), min_size=1, max_size=30), min_size=1, max_size=6),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(request, min_size=1, max_size=12),
    slots=st.integers(1, 3),
    multiple=st.sampled_from([1, 8]),
)
def test_every_text_gets_its_own_vector_whatever_is_mixed_and_cancelled(
    requests: list[tuple[Lane, list[list[int]], bool]], slots: int, multiple: int
) -> None:
    async def scenario() -> None:
        backend = FakeBackend(slots, multiple)
        async with running(backend) as batcher:
            first = await busy(backend, batcher)
            tasks = [
                asyncio.create_task(batcher.infer(texts(*ids), lane)) for lane, ids, _ in requests
            ]
            await settled()
            for task, (_, _, cancelled) in zip(tasks, requests, strict=True):
                if cancelled:
                    task.cancel()
            await settled()
            backend.release()
            for task, (_, ids, cancelled) in zip(tasks, requests, strict=True):
                if not cancelled:
                    vectors = (await task).rows
                    np.testing.assert_array_equal(vectors, np.stack([expected(i) for i in ids]))
            await first

    asyncio.run(scenario())


async def test_the_texts_of_a_cancelled_caller_do_not_reach_the_model() -> None:
    backend = FakeBackend()
    async with running(backend) as batcher:
        first = await busy(backend, batcher)
        gone = asyncio.create_task(batcher.infer(texts([7], [8]), INTERACTIVE))
        stays = asyncio.create_task(batcher.infer(texts([9]), BULK))
        await settled()
        gone.cancel()
        await settled()
        backend.release()
        await asyncio.gather(first, stays)
    assert backend.batches == [[[1]], [[9]]]


@pytest.mark.parametrize("count", [1, 2, 7, 16])
async def test_a_poisoned_text_fails_alone_and_is_named(count: int) -> None:
    backend = FakeBackend(poison=[666])
    async with running(backend, budget=256) as batcher:
        first = await busy(backend, batcher)
        others = [
            asyncio.create_task(batcher.infer(texts([number, 5], [number]), INTERACTIVE))
            for number in range(1, count + 1)
        ]
        bad = asyncio.create_task(batcher.infer(texts([3, 3], [666, 1], [4, 4]), INTERACTIVE))
        await settled()
        backend.release()
        with pytest.raises(InternalError, match=r"the model failed on texts\[1\]") as caught:
            await bad
        for number, other in enumerate(others, 1):
            vectors = (await other).rows
            np.testing.assert_array_equal(vectors[0], expected([number, 5]))
        await first
    assert caught.value.field == "texts[1]"
    runs = sum(any(666 in text for text in batch) for batch in backend.batches)
    assert runs <= 1 + (2 * count + 2).bit_length()


@pytest.mark.parametrize("bad_at", [0, 1])
async def test_of_two_callers_in_a_failed_batch_only_the_one_at_fault_fails(bad_at: int) -> None:
    ids = [5, 5]
    ids[bad_at] = 666
    backend = FakeBackend(poison=[666])
    async with running(backend) as batcher:
        first = await busy(backend, batcher)
        callers = [asyncio.create_task(batcher.infer(texts([one]), BULK)) for one in ids]
        await settled()
        backend.release()
        with pytest.raises(InternalError):
            await callers[bad_at]
        np.testing.assert_array_equal((await callers[1 - bad_at]).rows[0], expected([5]))
        await first


async def test_the_texts_of_a_caller_that_left_while_its_batch_failed_are_not_tried_again() -> None:
    backend = FakeBackend(poison=[666])
    async with running(backend) as batcher:
        backend.hold()
        gone = asyncio.create_task(batcher.infer(texts([7], [666]), BULK))
        await entered(backend)
        gone.cancel()
        await settled()
        backend.release()
        await batcher.infer(texts([9]), BULK)
    assert backend.batches == [[[7], [666]], [[9]]]


async def test_a_model_that_fails_on_everything_is_reported_once() -> None:
    backend = FakeBackend(poison=[5])
    reported: list[None] = []
    async with running(backend, on_broken=lambda: reported.append(None)) as batcher:
        for failures in range(1, 12):
            with pytest.raises(InternalError):
                await batcher.infer(texts([5]), BULK)
            # A round through the model: what it told the loop before has then been heard.
            await batcher.infer(texts([6]), BULK) if failures == 3 else await settled()
            assert len(reported) == 0 or failures >= 11
    assert len(reported) == 1


async def test_a_request_that_would_be_late_is_refused_with_the_time_to_wait() -> None:
    backend = FakeBackend()
    async with running(backend, rate=10.0) as batcher:
        first = await busy(backend, batcher)
        with pytest.raises(Overloaded, match="measured 10 tokens per second") as caught:
            await batcher.infer(texts(range(1, 20)), INTERACTIVE, left_s=0.5)
        backend.release()
        await first
    # One token in the model and nineteen of its own take 2 s.
    assert caught.value.retry_after_s == pytest.approx(1.5)


async def test_after_a_slow_batch_an_idle_model_takes_a_request_and_measures_again() -> None:
    backend, now = FakeBackend(), [0.0]
    async with running(backend, clock=lambda: now[0]) as batcher:
        slow = await busy(backend, batcher)
        now[0] = 10.0
        backend.release()
        await slow
        with pytest.raises(Overloaded, match="measured 0 tokens per second"):
            await batcher.infer(texts([1] * 20), INTERACTIVE, left_s=1.0)
        now[0] = 11.5
        await batcher.infer(texts([1] * 20), INTERACTIVE, left_s=1.0)
        # Twenty tokens in no time: the slow batch no longer counts for much.
        assert batcher.tokens_per_s > 1.0
        await batcher.infer(texts([1] * 20), INTERACTIVE, left_s=20.0)


async def test_bulk_that_waits_does_not_delay_the_admission_of_a_query() -> None:
    backend = FakeBackend()
    async with running(backend, rate=10.0) as batcher:
        first = await busy(backend, batcher)
        bulk = asyncio.create_task(batcher.infer(texts([1] * 60), BULK))
        await settled()
        query = asyncio.create_task(batcher.infer(texts([2]), INTERACTIVE, left_s=0.5))
        await settled()
        backend.release()
        await asyncio.gather(first, bulk, query)
    assert backend.batches[1] == [[2]]


async def test_a_full_lane_refuses_and_the_other_lane_does_not() -> None:
    backend = FakeBackend()
    async with running(backend, queued=10) as batcher:
        first = await busy(backend, batcher)
        waiting = asyncio.create_task(batcher.infer(texts([1] * 8), BULK))
        await settled()
        with pytest.raises(Overloaded, match="8 tokens are waiting, at most 10 may") as caught:
            await batcher.infer(texts([1] * 3), BULK)
        query = asyncio.create_task(batcher.infer(texts([2] * 3), INTERACTIVE))
        await settled()
        backend.release()
        await asyncio.gather(first, waiting, query)
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s > 0


async def test_a_stream_waits_for_room_in_order_where_others_are_refused() -> None:
    backend = FakeBackend()
    async with running(backend, budget=8, queued=10) as batcher:
        first = await busy(backend, batcher)
        waiting = [
            asyncio.create_task(batcher.infer(texts([number] * 8), BULK, wait=True))
            for number in (11, 12, 13, 14)
        ]
        await settled()
        backend.release()
        await asyncio.gather(first, *waiting)
    assert [batch[0][0] for batch in backend.batches] == [1, 11, 12, 13, 14]


async def test_bulk_counts_the_bulk_before_it_and_a_query_does_not() -> None:
    backend = FakeBackend()
    async with running(backend, rate=10.0) as batcher:
        first = await busy(backend, batcher)
        waiting = asyncio.create_task(batcher.infer(texts([1] * 20), BULK, left_s=3.0))
        await settled()
        batcher.check(INTERACTIVE, 3.5, own_tokens=1)
        # One token in the model, twice the twenty of its own tenant, and one of its own.
        with pytest.raises(Overloaded, match=r"would take 4\.200 s"):
            batcher.check(BULK, 3.5, own_tokens=1)
        backend.release()
        await asyncio.gather(first, waiting)


def of_tenant(tenant: str, work: Coroutine[None, None, object]) -> asyncio.Task[object]:
    """Starts work on behalf of a tenant."""
    with acting_for(Caller(tenant=tenant)):
        return asyncio.create_task(work)


async def flood(
    batcher: Batcher[Ids], lane: Lane, left_s: float
) -> tuple[list[asyncio.Task[object]], Overloaded]:
    """Sends requests of ten tokens for one tenant, until one is refused; returns its error."""
    sent: list[asyncio.Task[object]] = []
    while True:
        sent.append(of_tenant("a", batcher.infer(texts([1] * 10), lane, left_s=left_s)))
        await settled()
        if sent[-1].done():
            error = sent.pop().exception()
            assert isinstance(error, Overloaded)
            return sent, error


@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize("flood_left_s", [600.0, 5.0, 4.0, math.inf])
async def test_a_tenant_that_floods_a_lane_leaves_room_and_time_to_another(
    lane: Lane, flood_left_s: float
) -> None:
    backend = FakeBackend()
    async with running(backend, budget=16, queued=1_000, rate=100.0) as batcher:
        first = await busy(backend, batcher)
        flooding, _ = await flood(batcher, lane, flood_left_s)
        assert len(flooding) >= 20
        other = of_tenant("b", batcher.infer(texts([2] * 10), lane, left_s=5.0))
        await settled()
        assert not other.done()
        backend.release()
        await asyncio.gather(first, other, *flooding)
    # It is served by its deadline, not by when it came.
    place = next(at for at, batch in enumerate(backend.batches) if [2] * 10 in batch)
    assert place == (1 if flood_left_s > 5.0 else len(flooding) + 1)


async def test_a_tenant_that_floods_is_told_that_it_leaves_room_to_others() -> None:
    backend = FakeBackend()
    async with running(backend, queued=100) as batcher:
        first = await busy(backend, batcher)
        flooding, error = await flood(batcher, BULK, math.inf)
        backend.release()
        await asyncio.gather(first, *flooding)
    assert len(flooding) == 5
    assert "its tenant, which has 50 of them, may take as many as it leaves to others" in str(error)


async def test_a_stream_of_another_tenant_does_not_wait_behind_those_that_have_no_room() -> None:
    backend = FakeBackend()
    async with running(backend, budget=8, queued=24) as batcher:
        first = await busy(backend, batcher)
        flooding = [
            of_tenant("a", batcher.infer(texts([number] * 8), BULK, wait=True))
            for number in (11, 12, 13)
        ]
        await settled()
        other = of_tenant("b", batcher.infer(texts([21] * 8), BULK, wait=True))
        await settled()
        backend.release()
        await asyncio.gather(first, other, *flooding)
    assert [batch[0][0] for batch in backend.batches] == [1, 11, 12, 21, 13]


@pytest.mark.parametrize(("length", "waits"), [(2, False), (3, True)])
async def test_a_stream_waits_only_if_the_lane_would_exceed_its_limit(
    length: int, waits: bool
) -> None:
    backend = FakeBackend()
    # What its tenant has in the lane counts twice.
    async with running(backend, queued=18) as batcher:
        first = await busy(backend, batcher)
        tasks = []
        for count in (8, length):
            tasks.append(asyncio.create_task(batcher.infer(texts([1] * count), BULK, wait=True)))
            await settled()
        assert len(batcher._futures) == 3 - waits
        backend.release()
        await asyncio.gather(first, *tasks)


async def test_a_stream_that_is_cancelled_while_it_waits_lets_the_next_one_in() -> None:
    backend = FakeBackend()
    async with running(backend, budget=8, queued=10) as batcher:
        first = await busy(backend, batcher)
        waiting = [
            asyncio.create_task(batcher.infer(texts([number] * 8), BULK, wait=True))
            for number in (11, 12, 13)
        ]
        await settled()
        waiting[1].cancel()
        await settled()
        backend.release()
        await asyncio.gather(first, waiting[0], waiting[2])
    assert [batch[0][0] for batch in backend.batches] == [1, 11, 13]


async def test_a_stream_that_is_cancelled_as_its_turn_comes_lets_the_next_one_in() -> None:
    backend = FakeBackend()
    async with running(backend, queued=10) as batcher:
        first = await busy(backend, batcher)
        queued, turn, after = (
            asyncio.create_task(batcher.infer(texts([number] * 8), BULK, wait=True))
            for number in (11, 12, 13)
        )
        await settled()
        assert len(batcher._futures) == 2
        queued.cancel()
        # One step: there is room now, and the next stream was told but has not run yet.
        await asyncio.sleep(0)
        turn.cancel()
        await settled()
        assert len(batcher._futures) == 2
        backend.release()
        await asyncio.gather(first, after)
    assert turn.cancelled()


async def test_the_time_in_the_queue_and_the_time_in_the_model_are_told_apart() -> None:
    backend = FakeBackend()
    now = [0.0]
    async with running(backend, clock=lambda: now[0]) as batcher:
        first = await busy(backend, batcher)
        task = asyncio.create_task(batcher.infer(texts([7]), INTERACTIVE))
        await settled()
        now[0] = 2.0
        backend.release()
        _, waited = await asyncio.gather(first, task)
        await entered(backend)
        backend.hold()
        second = asyncio.create_task(batcher.infer(texts([8]), INTERACTIVE))
        await entered(backend)
        now[0] = 5.0
        backend.release()
        ran = await second
    assert (waited.queue_s, waited.inference_s) == (2.0, 0.0)
    assert (ran.queue_s, ran.inference_s) == (0.0, 3.0)


async def test_a_request_of_several_batches_waits_in_the_queue_until_the_first() -> None:
    backend, now = FakeBackend(), [0.0]
    async with running(backend, budget=4, clock=lambda: now[0]) as batcher:
        backend.hold()
        task = asyncio.create_task(batcher.infer(texts([7] * 4, [8] * 4), INTERACTIVE))
        await entered(backend)
        now[0] = 2.0
        backend.release()
        done = await task
    assert len(backend.batches) == 2
    assert (done.queue_s, done.inference_s) == (0.0, 2.0)


async def test_what_expires_in_the_queue_fails_and_is_not_run() -> None:
    backend = FakeBackend()
    now = [0.0]
    async with running(backend, clock=lambda: now[0]) as batcher:
        first = await busy(backend, batcher)
        late = asyncio.create_task(batcher.infer(texts([7]), INTERACTIVE, left_s=1.0))
        await settled()
        now[0] = 2.0
        backend.release()
        with pytest.raises(DeadlineExceeded, match="waited for the model"):
            await late
        await first
    assert backend.batches == [[[1]]]


async def test_as_many_batches_run_at_once_as_there_are_slots() -> None:
    backend = FakeBackend(slots=2)
    async with running(backend, budget=4) as batcher:
        backend.hold()
        tasks = [asyncio.create_task(batcher.infer(texts([n] * 4), BULK)) for n in range(1, 5)]
        await entered(backend)
        await entered(backend)
        assert len(backend.batches) == 2
        backend.release()
        await asyncio.gather(*tasks)
    assert len(backend.batches) == 4


async def test_closing_fails_what_waits_and_ends_the_threads() -> None:
    backend = FakeBackend()
    batcher = Batcher(PaddedBackend(backend), budget=8, max_queued_tokens=100)
    batcher.start()
    first = await busy(backend, batcher)
    waiting = asyncio.create_task(batcher.infer(texts([2]), BULK))
    await settled()
    closing = asyncio.create_task(batcher.close())
    await settled()
    backend.release()
    await closing
    await first
    with pytest.raises(NotReady, match="stopping"):
        await waiting
    assert not [t for t in threading.enumerate() if t.name.startswith("model-")]


async def test_closing_fails_streams_that_wait_for_room_and_what_comes_later() -> None:
    backend = FakeBackend()
    async with running(backend, queued=4) as batcher:
        first = await busy(backend, batcher)
        waiting = [
            asyncio.create_task(batcher.infer(texts([2] * 4), BULK, wait=True)) for _ in range(6)
        ]
        await settled()
        closing = asyncio.create_task(batcher.close())
        await settled()
        backend.release()
        async with asyncio.timeout(10):
            await asyncio.gather(closing, first)
            for one in (*waiting, batcher.infer(texts([3]), BULK)):
                with pytest.raises(NotReady, match="stopping"):
                    await one


class FakeFallback:
    """GPUs whose batches the CPU runs while `away` says why."""

    budget = 8

    def __init__(self) -> None:
        self.away = ""
        self.closed = False

    def reason(self, slot: int) -> str:
        return self.away

    configured_gpus = 2

    def count_gpus(self) -> int:
        return 0 if self.away else 1

    def close(self) -> None:
        self.closed = True


async def test_while_the_cpu_stands_in_for_a_gpu_batches_are_small_and_results_say_so() -> None:
    backend, fallback = FakeBackend(), FakeFallback()
    batcher = Batcher(PaddedBackend(backend), budget=64, max_queued_tokens=1024, fallback=fallback)
    batcher.start()
    sent = texts(*[[1, 2, 3, 4]] * 8)
    assert (await batcher.infer(sent, BULK)).fallback_reason == ""
    fallback.away = "cuda:0: it is away"
    assert (await batcher.infer(sent, BULK)).fallback_reason == "cuda:0: it is away"
    fallback.away = ""
    assert (await batcher.infer(sent, BULK)).fallback_reason == ""
    assert [len(batch) for batch in backend.batches] == [8, 2, 2, 2, 2, 8]
    await batcher.close()
    assert fallback.closed
