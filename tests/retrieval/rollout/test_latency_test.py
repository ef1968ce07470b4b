"""Latency tests by request and by user: each draw counts once."""

from __future__ import annotations

import math
import random

import pytest

from retrieval.rollout import latency_test
from retrieval.rollout.distinct_sampler import DistinctSampler
from retrieval.rollout.latency_test import LatencyTest

LIMIT = math.log(700)


def ask(
    latencies: LatencyTest,
    draw: random.Random,
    *,
    users: int,
    requests: int,
    slower: float = 1.0,
    spread: float = 0.0,
) -> None:
    """Users send requests equally often; each has a mean latency of its own."""
    known = [
        (draw.getrandbits(64), draw.random() < 0.2, draw.lognormvariate(-5, spread))
        for _ in range(users)
    ]
    for number in range(requests):
        unit, canary, usual = draw.choice(known)
        seconds = usual * draw.lognormvariate(0, 0.4) * (slower if canary else 1.0)
        latencies.add(canary, unit, seconds, judged=number > 200)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_canary_at_the_allowed_latency_gives_no_evidence(spread: float) -> None:
    reached = 0
    for seed in range(10):
        latencies = LatencyTest(0.2, 1.2, DistinctSampler())
        ask(latencies, random.Random(seed), users=400, requests=3_000, slower=1.2, spread=spread)
        reached += max(latencies.log_evidence, latencies.tail.log_evidence) >= math.log(20)
    assert reached <= 1


def test_blocks_of_frequent_users_add_evidence() -> None:
    for seed in range(5):
        latencies = LatencyTest(0.2, 1.0, DistinctSampler())
        ask(latencies, random.Random(seed), users=300, requests=8_000, slower=1.3)
        assert latencies.log_evidence >= LIMIT


def test_a_user_counts_at_most_once_for_each_block_size_and_once_in_the_tail() -> None:
    draw = random.Random(1)
    latencies = LatencyTest(0.5, 1.0, DistinctSampler())
    for _ in range(2_000):
        latencies.add(False, 8 * draw.randrange(40), draw.lognormvariate(-5, 0.4), judged=True)
    before = latencies.log_evidence
    assert before == pytest.approx(-math.log(3))
    for _ in range(2_000):
        latencies.add(True, 1, 10.0, judged=True)
    # Where the share is a half, one value doubles the evidence at most.
    assert before < latencies.log_evidence <= before + math.log(2)
    assert latencies.tail.canary == 1


def test_users_who_set_thresholds_are_not_compared() -> None:
    draw = random.Random(1)
    latencies = LatencyTest(0.2, 1.0, DistinctSampler())
    for _ in range(3_000):
        canary = draw.random() < 0.5
        latencies.add(canary, 8 * draw.getrandbits(61), 10.0 if canary else 0.01, judged=True)
    assert latencies.log_evidence == pytest.approx(-math.log(3))


def test_without_units_every_request_counts() -> None:
    draw = random.Random(1)
    latencies = LatencyTest(0.2, 1.0, None)
    for _ in range(1_000):
        canary = draw.random() < 0.2
        latencies.add(canary, 0, 10.0 if canary else draw.uniform(0.01, 0.02), judged=True)
    assert latencies.log_evidence > 10 * LIMIT
    # The thresholds are there after 64 of the current snapshot; about a fifth are the canary's.
    assert 140 < latencies.tail.canary < 260


def test_unjudged_requests_give_no_evidence_and_zero_seconds_are_valid() -> None:
    latencies = LatencyTest(0.2, 1.0, None)
    for number in range(1_000):
        latencies.add(number % 5 == 0, 0, 0.0, judged=False)
    assert latencies.log_evidence == pytest.approx(0.0)
    latencies.add(True, 0, 0.0, judged=True)
    assert math.isfinite(latencies.log_evidence)


def test_of_too_many_open_blocks_the_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_test, "_MAX_OPEN_BLOCKS", 2)
    level = LatencyTest(0.2, 1.0, DistinctSampler())._levels[1]
    # Unit 1 is the oldest when unit 3 comes. What is in an open block stays there.
    for unit, value in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 2.0), (3, 5.0)):
        assert level.mean(unit, value) is None
    assert [level.mean(3, value) for value in (7.0, 9.0)] == [None, 6.0]
    assert [level.mean(2, 4.0) for _ in range(2)] == [None, 3.0]
    # A unit whose block was dropped or is complete begins with an empty one.
    assert [level.mean(1, 4.0) for _ in range(4)] == [None, None, None, 4.0]
    assert level.mean(3, 1.0) is None


def test_a_user_is_compared_by_the_first_request_and_by_the_means_of_4_and_16() -> None:
    draw = random.Random(1)
    latencies = LatencyTest(0.5, 1.0, DistinctSampler())
    for _ in range(64 * 16):
        latencies.add(False, 8, draw.lognormvariate(-5, 0.4), judged=True)
    compared: list[list[int]] = [[], [], []]
    for number in range(1, 40):
        before = [level.test.log_evidence for level in latencies._levels]
        latencies.add(True, 1, 10.0, judged=True)
        for level, known, numbers in zip(latencies._levels, before, compared, strict=True):
            if level.test.log_evidence != known:
                numbers.append(number)
    assert compared == [[1], [4], [16]]
