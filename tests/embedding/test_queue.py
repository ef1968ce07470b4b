"""The rule by which batches are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, strategies as st

from embedding.queue import PATIENCE_S, Batch, BatchLimits, BatchQueue, DropReason, InferenceJob
from nearline.contract import Lane

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


def make_job(
    lengths: Sequence[int], lane: Lane = BULK, deadline: float = math.inf, tenant: str = ""
) -> InferenceJob:
    items = [np.zeros(length, np.int64) for length in lengths]
    return InferenceJob.of(items, lane, deadline, 1, tenant)


def take(lanes: BatchQueue, now: float = 0.0) -> Batch:
    batch = lanes.take(now).batch
    assert batch is not None
    return batch


def lengths(batch: Batch) -> list[int]:
    return [entry.length for entry in batch.entries]


@given(
    jobs=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=8), min_size=1, max_size=12),
    budget=st.integers(8, 128),
    multiple=st.sampled_from([1, 4, 8]),
)
def test_every_text_comes_once_within_the_budget_and_the_oldest_in_the_next_batch(
    jobs: list[list[int]], budget: int, multiple: int
) -> None:
    lanes = BatchQueue(budget, pad_multiple=multiple)
    waiting = []
    for sizes in jobs:
        job = make_job(sizes)
        lanes.push(job, 0.0)
        waiting += job.entries
    while waiting:
        batch = take(lanes)
        padded = [math.ceil(length / multiple) * multiple for length in lengths(batch)]
        assert max(padded) * len(padded) <= budget or len(padded) == 1
        assert waiting[0] in batch.entries
        assert lengths(batch) == sorted(lengths(batch))
        for entry in batch.entries:
            waiting.remove(entry)
    assert lanes.take(0.0).batch is None
    assert lanes.tokens(BULK) == 0


def test_texts_of_like_length_share_a_batch() -> None:
    lanes = BatchQueue(400)
    lanes.push(make_job([100, 10] * 4), 0.0)
    assert lengths(take(lanes)) == [100] * 4
    assert lengths(take(lanes)) == [10] * 4


def test_on_a_gpu_a_batch_is_full_rather_than_even() -> None:
    lanes = BatchQueue(4000)
    lanes.push(make_job([400] * 3 + [500] * 5), 0.0)
    # 1,200 tokens cost 1,250 on a CPU, and 3,700 cost 4,050.
    assert lengths(take(lanes)) == [400] * 3
    lanes = BatchQueue(4000)
    lanes.limits = BatchLimits.for_gpu(4000)
    lanes.push(make_job([400] * 3 + [500] * 5), 0.0)
    # 1,700 and 4,500 on a GPU.
    assert lengths(take(lanes)) == [400] * 3 + [500] * 5


@pytest.mark.parametrize(
    ("limits", "texts"), [(BatchLimits(1000), 2), (BatchLimits.for_gpu(1000), 5)]
)
def test_while_queries_arrive_bulk_on_a_gpu_has_half_a_batch(
    limits: BatchLimits, texts: int
) -> None:
    lanes = BatchQueue(1000)
    lanes.limits = limits
    lanes.push(make_job([100] * 20), 0.0)
    lanes.push(make_job([100], INTERACTIVE), 0.0)
    assert len(take(lanes).entries) == 1
    assert len(take(lanes).entries) == texts
    # A second after the last query, batches of bulk are whole again.
    assert len(take(lanes, 2.0).entries) == 10


def test_the_batch_with_the_least_padding_has_the_most_urgent_text() -> None:
    lanes = BatchQueue(200)
    lanes.push(make_job([50]), 0.0)
    lanes.push(make_job([40] * 6 + [50]), 1.0)
    # With the other text of its length, however many shorter ones are before both.
    assert lengths(take(lanes, 1.0)) == [40, 40, 50, 50]


def test_texts_of_several_jobs_share_a_batch() -> None:
    lanes = BatchQueue(400)
    for second in range(3):
        lanes.push(make_job([10, 10]), float(second))
    assert lengths(take(lanes, 2.0)) == [10] * 6


@pytest.mark.parametrize(
    ("jobs", "count"),
    [
        # The window holds 320 tokens ...
        ([[10] + [1] * 309, [10] * 3], 2),
        ([[10] + [1] * 310, [10] * 3], 1),
        # ... or twice as many of the job that is due first.
        ([[10] + [1] * 310 + [10] * 3], 4),
        ([[10] + [1] * 629 + [10] * 3], 2),
        ([[10] + [1] * 630 + [10] * 3], 1),
    ],
)
def test_texts_of_like_length_are_found_within_the_window(
    jobs: list[list[int]], count: int
) -> None:
    lanes = BatchQueue(40)
    for second, sizes in enumerate(jobs):
        lanes.push(make_job(sizes), float(second))
    assert lengths(take(lanes, 1.0)).count(10) == count


def test_interactive_goes_before_bulk() -> None:
    lanes = BatchQueue(512)
    lanes.push(make_job([10] * 5), 0.0)
    lanes.push(make_job([10], INTERACTIVE), 0.0)
    assert take(lanes).lane is INTERACTIVE
    assert take(lanes).lane is BULK


@pytest.mark.parametrize(("later_s", "count"), [(0.0, 4), (0.999, 4), (1.0, 16)])
def test_bulk_is_cut_to_256_tokens_for_a_second_after_a_query(later_s: float, count: int) -> None:
    lanes = BatchQueue(1024)
    lanes.push(make_job([64] * 16), 100.0)
    lanes.push(make_job([8], INTERACTIVE), 100.0)
    assert take(lanes, 100.0).lane is INTERACTIVE
    assert lengths(take(lanes, 100.0 + later_s)) == [64] * count


def test_bulk_gets_a_tenth_while_queries_never_end() -> None:
    lanes = BatchQueue(1024)
    done = {INTERACTIVE: 0, BULK: 0}
    lanes.push(make_job([64] * 400), 0.0)
    for _ in range(200):
        lanes.push(make_job([64] * 16, INTERACTIVE), 0.0)
        batch = take(lanes)
        done[batch.lane] += batch.tokens
    assert done[BULK] / done[INTERACTIVE] == pytest.approx(0.1, rel=0.1)


def test_bulk_that_is_given_up_leaves_no_share_to_the_next() -> None:
    lanes = BatchQueue(64)

    def queries_before_bulk() -> int:
        for count in range(1, 100):
            lanes.push(make_job([64], INTERACTIVE), 0.0)
            if take(lanes).lane is BULK:
                return count
        raise AssertionError("bulk never runs")

    lanes.push(make_job([64]), 0.0)
    alone = queries_before_bulk()
    while lanes.take(0.0).batch is not None:
        pass
    given_up = make_job([64])
    lanes.push(given_up, 0.0)
    for _ in range(alone - 2):
        lanes.push(make_job([64], INTERACTIVE), 0.0)
        assert take(lanes).lane is INTERACTIVE
    lanes.drop(given_up, DropReason.CANCELLED)
    assert lanes.take(0.0).batch is None
    lanes.push(make_job([64]), 0.0)
    assert queries_before_bulk() == alone


@pytest.mark.parametrize("in_window", [False, True])
def test_what_is_dropped_is_not_run_and_is_counted(*, in_window: bool) -> None:
    lanes = BatchQueue(64)
    kept, gone = make_job([8, 8]), make_job([8, 8, 8], deadline=5.0)
    lanes.push(gone, 0.0)
    lanes.push(kept, 0.0)
    if in_window:
        lanes.push(make_job([64], deadline=1.0), 0.0)
        assert lengths(take(lanes)) == [64]
    lanes.drop(gone, DropReason.CANCELLED)
    assert lanes.tokens(BULK) == 16
    taken = lanes.take(5.0)
    assert taken.expired == []
    assert taken.batch is not None and taken.batch.entries == kept.entries
    assert lanes.drops == {(BULK, DropReason.CANCELLED): 3}


@pytest.mark.parametrize("in_window", [False, True])
def test_a_job_whose_time_is_up_is_given_back_whole_and_not_run(*, in_window: bool) -> None:
    lanes = BatchQueue(64)
    late, other = make_job([8, 8], INTERACTIVE, deadline=5.0), make_job([8], INTERACTIVE)
    lanes.push(late, 0.0)
    lanes.push(other, 0.0)
    if in_window:
        lanes.push(make_job([64], INTERACTIVE, deadline=1.0), 0.0)
        assert lengths(take(lanes)) == [64]
    taken = lanes.take(5.0)
    assert taken.expired == [late]
    assert taken.batch is not None and taken.batch.entries == other.entries
    assert lanes.tokens(INTERACTIVE) == 0
    assert lanes.drops == {(INTERACTIVE, DropReason.EXPIRED): 2}


def test_halves_of_a_failed_batch_run_next_and_keep_the_count() -> None:
    lanes = BatchQueue(64)
    job = make_job([4] * 5)
    lanes.push(job, 0.0)
    batch = take(lanes)
    lanes.push(make_job([4], INTERACTIVE), 0.0)
    lanes.split(batch)
    assert lanes.tokens(BULK) == 20
    assert [len(take(lanes).entries) for _ in range(3)] == [2, 3, 1]
    assert lanes.tokens(BULK) == 0


@pytest.mark.parametrize("retrying", [False, True])
def test_a_job_that_is_given_up_is_in_neither_half_of_a_failed_batch(*, retrying: bool) -> None:
    lanes = BatchQueue(64)
    gone, kept = make_job([4] * 3), make_job([4] * 2)
    lanes.push(gone, 0.0)
    lanes.push(kept, 0.0)
    batch = take(lanes)
    if retrying:
        lanes.split(batch)
    lanes.drop(gone, DropReason.CANCELLED)
    if not retrying:
        lanes.split(batch)
    assert lanes.tokens(BULK) == 8
    assert take(lanes).entries == kept.entries
    assert lanes.take(0.0).batch is None
    assert lanes.tokens(BULK) == 0


def test_a_text_longer_than_the_budget_runs_alone() -> None:
    lanes = BatchQueue(16)
    lanes.push(make_job([100, 4]), 0.0)
    assert lengths(take(lanes)) == [100]


@pytest.mark.parametrize("lane", [INTERACTIVE, BULK])
@given(
    jobs=st.lists(
        st.tuples(st.integers(1, 60), st.floats(1.0, PATIENCE_S) | st.just(math.inf)),
        min_size=1,
        max_size=40,
    )
)
def test_the_next_batch_holds_the_text_that_is_due_first(
    lane: Lane, jobs: list[tuple[int, float]]
) -> None:
    # Far more texts than the window holds.
    lanes = BatchQueue(8)
    waiting = []
    for length, deadline in jobs:
        job = make_job([length], lane, deadline)
        lanes.push(job, 0.0)
        waiting.append(job)
    while waiting:
        batch = take(lanes)
        first = min(waiting, key=lambda job: min(job.deadline, PATIENCE_S))
        assert first.entries[0] in batch.entries
        for entry in batch.entries:
            waiting.remove(entry.job)


def test_urgent_texts_go_first_however_many_wait() -> None:
    lanes = BatchQueue(64)
    for _ in range(100):
        lanes.push(make_job([8] * 8, BULK, deadline=20.0), 0.0)
    lanes.take(0.0)
    urgent = make_job([8], BULK, deadline=1.0)
    lanes.push(urgent, 0.5)
    assert urgent.entries[0] in take(lanes, 0.5).entries


def test_an_urgent_text_goes_first_though_the_window_is_full() -> None:
    lanes = BatchQueue(8)
    for length, deadline in ((1, 10.0), (100, 20.0), (100, 30.0), (100, 40.0)):
        lanes.push(make_job([length], deadline=deadline), 0.0)
    # A single token: what is left is still more than the window holds.
    assert lengths(take(lanes)) == [1]
    lanes.push(make_job([8], deadline=1.0), 0.5)
    assert lengths(take(lanes, 0.5)) == [8]


def test_urgent_texts_do_not_starve_one_without_a_deadline() -> None:
    lanes = BatchQueue(8)
    patient = make_job([8])
    lanes.push(patient, 0.0)
    for second in range(100):
        lanes.push(make_job([8], deadline=second + 2.0), float(second))
        if patient.entries[0] in take(lanes, float(second)).entries:
            break
    # Until then every other text was due earlier.
    assert PATIENCE_S - 3 <= second <= PATIENCE_S + 1


def test_what_is_due_earlier_is_ahead_and_that_of_its_own_tenant_counts_twice() -> None:
    lanes = BatchQueue(8)
    for deadline, tenant in ((1.0, "a"), (2.0, "b"), (9.0, "a"), (math.inf, "b")):
        lanes.push(make_job([8], deadline=deadline, tenant=tenant), 0.0)
    assert [lanes.ahead(BULK, tenant, 8, 3.0, 0.0) for tenant in "abc"] == [24, 24, 16]
    assert lanes.ahead(INTERACTIVE, "c", 8, 3.0, 0.0) == 0


def test_queries_ahead_of_bulk_are_as_many_as_its_share_lets_through() -> None:
    lanes = BatchQueue(8)
    lanes.push(make_job([1_000], INTERACTIVE), 0.0)
    assert lanes.ahead(BULK, "c", 8, 3.0, 0.0) == 80
    assert lanes.ahead(BULK, "c", 500, 3.0, 0.0) == 1_000


def test_old_work_of_a_tenant_that_floods_a_slow_model_is_not_due_before_that_of_others() -> None:
    lanes = BatchQueue(10)
    lanes.tokens_per_s = 10.0
    for _ in range(60):
        lanes.push(make_job([10], deadline=600.0, tenant="a"), 0.0)
    for second in range(29):
        take(lanes, float(second))
    assert lanes.tokens(BULK) == 310
    assert lanes.ahead(BULK, "b", 10, 29.0 + 5.0, 29.0) == 0
