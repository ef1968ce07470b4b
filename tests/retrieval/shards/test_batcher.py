"""Batching: every query gets its own answer, and a failing query fails alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from nearline.errors import NotReady, Overloaded
from retrieval.protocols.shard import ShardQueries
from retrieval.shards.batcher import Batch, Batcher


class Workers:
    """Runners that stop before each batch until the test releases one."""

    def __init__(self, slots: int, max_batch: int) -> None:
        self.sizes: list[int] = []
        self.options: list[str] = []
        self.running: deque[Batch[str, str]] = deque()
        self.batcher: Batcher[str, str] = Batcher(self._start, slots=slots, max_batch=max_batch)

    def _start(self) -> None:
        batch = self.batcher.take()
        if batch is not None:
            self.sizes.append(batch.queries.count)
            self.options.append(batch.options)
            self.running.append(batch)

    def go_on(self, *, newest: bool = False) -> None:
        """Ends one batch: an answer names the query's number and options."""
        batch = self.running.pop() if newest else self.running.popleft()
        numbers = batch.queries.vectors[:, 0].astype(int).tolist()
        if any(number < -1 for number in numbers):
            self.batcher.finish(batch, None, ZeroDivisionError("poison"))
        elif any(number < 0 for number in numbers):
            self.batcher.finish(batch, None, NotReady("the peer is away"))
        else:
            self.batcher.finish(batch, [f"{batch.options}{number}" for number in numbers])
        self._start()


def rows(*numbers: int) -> ShardQueries:
    return ShardQueries(np.array(numbers, np.float32)[:, None])


async def settled(*futures: asyncio.Future[Sequence[str]]) -> list[object]:
    return list(await asyncio.gather(*futures, return_exceptions=True))


@settings(deadline=None, max_examples=80)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from("ab"), st.booleans()), min_size=1, max_size=25
    ),
    slots=st.integers(1, 3),
    max_batch=st.integers(1, 8),
)
def test_every_query_gets_its_own_answer(
    requests: list[tuple[int, str, bool]], slots: int, max_batch: int
) -> None:
    async def check() -> None:
        workers = Workers(slots, max_batch)
        asked = []
        number = 0
        for size, options, pause in requests:
            mine = list(range(number, number + size))
            number += size
            answer = workers.batcher.submit(rows(*mine), options)
            asked.append((answer, [f"{options}{one}" for one in mine]))
            assert len(workers.running) <= slots
            if pause and workers.running:
                workers.go_on(newest=bool(number % 2))
        while workers.running:
            workers.go_on()
        for answer, wanted in asked:
            assert list(await answer) == wanted
        assert max(workers.sizes) <= max_batch

    asyncio.run(check())


async def test_a_query_starts_at_once_if_a_slot_is_free() -> None:
    workers = Workers(2, 8)
    for number in range(2):
        workers.batcher.submit(rows(number), "a")
    assert workers.sizes == [1, 1]


async def test_waiting_queries_with_equal_options_share_a_batch_oldest_group_first() -> None:
    workers = Workers(1, 8)
    answers = [
        workers.batcher.submit(rows(number), options) for number, options in enumerate("abaab")
    ]
    while workers.running:
        workers.go_on()
    assert list(zip(workers.options, workers.sizes, strict=True)) == [("a", 1), ("b", 2), ("a", 2)]
    assert [answer.result() for answer in answers] == [["a0"], ["b1"], ["a2"], ["a3"], ["b4"]]


async def test_a_large_request_is_split_and_its_results_are_joined() -> None:
    workers = Workers(2, 4)
    answer = workers.batcher.submit(rows(*range(10)), "a")
    await asyncio.sleep(0)
    while workers.running:
        workers.go_on()
    assert await answer == [f"a{number}" for number in range(10)]
    assert workers.sizes == [4, 4, 2]


async def test_a_cancelled_query_is_not_run_and_the_others_are() -> None:
    workers = Workers(1, 8)
    first, gone, last = (workers.batcher.submit(rows(number), "a") for number in range(3))
    gone.cancel()
    while workers.running:
        workers.go_on()
    assert await settled(first, last) == [["a0"], ["a2"]]
    assert workers.sizes == [1, 1]


async def test_a_query_cancelled_while_running_frees_its_slot() -> None:
    workers = Workers(1, 8)
    gone = workers.batcher.submit(rows(0), "a")
    other = workers.batcher.submit(rows(1), "a")
    gone.cancel()
    workers.go_on()
    workers.go_on()
    assert await other == ["a1"]


async def test_an_unexpected_error_fails_only_the_query_that_caused_it() -> None:
    workers = Workers(1, 8)
    answers = [workers.batcher.submit(rows(number), "a") for number in (0, 1, -7, 2)]
    while workers.running:
        workers.go_on()
    first, second, poison, last = await settled(*answers)
    assert [first, second, last] == [["a0"], ["a1"], ["a2"]]
    assert isinstance(poison, ZeroDivisionError)
    assert workers.sizes == [1, 3, 1, 1, 1]


async def test_a_nearline_error_fails_the_batch_and_the_next_batch_runs() -> None:
    workers = Workers(1, 8)
    workers.batcher.submit(rows(0), "a")
    batch = [workers.batcher.submit(rows(number), "a") for number in (1, -1)]
    workers.go_on()
    later = workers.batcher.submit(rows(3), "a")
    while workers.running:
        workers.go_on()
    assert [type(outcome) for outcome in await settled(*batch)] == [NotReady, NotReady]
    assert await later == ["a3"]


@pytest.mark.parametrize(("deadlines", "wanted"), [((5.0, 9.0), 9.0), ((5.0, None), None)])
async def test_a_batch_has_the_latest_deadline_of_its_queries(
    deadlines: tuple[float | None, ...], wanted: float | None
) -> None:
    workers = Workers(1, 8)
    workers.batcher.submit(rows(0), "a", 1.0)
    for deadline in deadlines:
        workers.batcher.submit(rows(1), "a", deadline)
    workers.go_on()
    assert workers.running[0].deadline == wanted


async def test_queries_beyond_the_limit_are_refused_and_cancelled_ones_do_not_count() -> None:
    batcher: Batcher[str, str] = Batcher(lambda: None, slots=0, max_batch=4, max_waiting=10)
    waiting = [batcher.submit(rows(number), "a") for number in range(10)]
    with pytest.raises(Overloaded, match=r"10 queries wait .* 1 more .* 10 may wait") as caught:
        await batcher.submit(rows(10), "b")
    assert caught.value.retry_after_s
    # A large request is refused as a whole: none of its parts waits.
    waiting[0].cancel()
    with pytest.raises(Overloaded, match=r"9 queries wait .* 6 more"):
        await batcher.submit(rows(*range(6)), "b")
    later = batcher.submit(rows(11), "b")
    assert not later.done()
    with pytest.raises(Overloaded):
        await batcher.submit(rows(12), "b")
    taken = batcher.take()
    assert taken is not None and taken.queries.count == 4
    assert not batcher.submit(rows(13), "b").done()


async def test_parts_of_a_large_request_run_alone_and_in_turn() -> None:
    batcher: Batcher[str, str] = Batcher(lambda: None, slots=0, max_batch=4, max_part=16)
    large = batcher.submit(rows(*range(36)), "a")
    small = [batcher.submit(rows(number), "a") for number in (50, 51)]
    sizes = []
    while (batch := batcher.take()) is not None:
        sizes.append(batch.queries.count)
        batcher.finish(batch, [f"{row[0]:g}" for row in batch.queries.vectors])
    assert sizes == [16, 16, 4, 2]
    assert await large == [str(number) for number in range(36)]
    assert [list(await one) for one in small] == [["50"], ["51"]]


async def test_a_request_larger_than_the_queue_is_admitted_to_an_empty_one() -> None:
    batcher: Batcher[str, str] = Batcher(lambda: None, slots=0, max_batch=4, max_waiting=3)
    assert not batcher.submit(rows(1, 2, 3, 4), "a").done()


async def test_the_other_parts_of_a_failed_request_are_dropped() -> None:
    workers = Workers(slots=1, max_batch=1)
    answer = workers.batcher.submit(rows(-1, 2, 3), "a")
    workers.go_on()
    assert isinstance((await settled(answer))[0], NotReady)
    while workers.running:
        workers.go_on()
    assert len(workers.sizes) <= 2
