"""Tests of exact search on GPUs, with a card of round figures."""

from __future__ import annotations

import pytest

from nearline_cli.sizing.cards import CARDS, Card
from nearline_cli.sizing.flat_search import (
    FlatSearchPlan,
    arithmetic_seconds,
    cards_for_memory,
    crossover_batch,
    distance_crossover_batch,
    distance_seconds,
    flat_bytes,
    plan_flat_search,
    read_seconds,
    scan_seconds,
)

# A thousand vectors of 100 numbers are 200,000 bytes: 0.2 s.
CARD = Card(memory=1e6, bandwidth=1e6, flops=1e8)


def plan(queries: float, snapshots: int = 2) -> FlatSearchPlan:
    return plan_flat_search(
        CARD,
        vectors=1_000,
        dim=100,
        queries=queries,
        batch=10,
        snapshots=snapshots,
        scratch=5e5,
        load=0.5,
    )


def test_a_batch_reads_vectors_once_and_its_distances_twice() -> None:
    assert flat_bytes(1_000, 100) == 200_000
    assert read_seconds(1_000, 100, CARD) == 0.2
    # 10 queries x 1,000 vectors x (2 bytes written + 2 read).
    assert distance_seconds(1_000, 10, CARD) == 0.04
    # 10 queries x 1,000 vectors x 100 numbers x 2.
    assert arithmetic_seconds(1_000, 100, 10, CARD) == 0.02
    assert scan_seconds(1_000, 100, 10, CARD) == pytest.approx(0.24)


def test_a_card_with_little_arithmetic_is_bound_by_it() -> None:
    slow = CARD.at(bandwidth_efficiency=1.0, flop_efficiency=0.01)
    assert scan_seconds(1_000, 100, 10, slow) == arithmetic_seconds(1_000, 100, 10, slow) == 2.0


def test_at_a_crossover_both_take_equally_long() -> None:
    card = CARD.at(bandwidth_efficiency=0.5, flop_efficiency=0.25)
    batch = int(crossover_batch(card))
    assert batch == 50
    assert arithmetic_seconds(1_000, 100, batch, card) == read_seconds(1_000, 100, card)
    batch = int(distance_crossover_batch(100))
    assert batch == 50
    assert distance_seconds(1_000, batch, card) == read_seconds(1_000, 100, card)


def test_memory_is_split_over_cards_beside_their_scratch() -> None:
    assert cards_for_memory(500_000, CARD, 500_000) == 1
    assert cards_for_memory(500_001, CARD, 500_000) == 2


def test_a_plan_has_cards_for_memory_and_for_the_rate() -> None:
    # 10 queries in 0.24 s are 41.7/s, of which half are planned with.
    few = plan(queries=17)
    assert (few.cards_for_memory, few.cards_for_rate, few.cards) == (1, 1, 1)
    many = plan(queries=42)
    assert (many.cards_for_rate, many.cards) == (3, 3)
    assert many.qps == pytest.approx(10 / 0.24)
    assert (many.read_qps, many.distance_qps, many.arithmetic_qps) == (50, 250, 500)
    assert many.batch_ms == pytest.approx(240)
    large = plan(queries=1, snapshots=3)
    assert (large.cards_for_memory, large.cards) == (2, 2)


def test_more_shards_answer_as_much_faster_as_there_are_cards() -> None:
    whole = scan_seconds(1_000, 100, 10, CARD)
    assert scan_seconds(250, 100, 10, CARD) == pytest.approx(whole / 4)


def test_ten_million_vectors_on_an_h100() -> None:
    h100 = CARDS["h100"]
    assert flat_bytes(10e6, 384) == 7.68e9
    assert 64 / read_seconds(10e6, 384, h100) == pytest.approx(64 * 3.35e12 / 7.68e9)
    assert 1 / arithmetic_seconds(10e6, 384, 1, h100) == pytest.approx(989e12 / 7.68e9)
    assert crossover_batch(h100) == pytest.approx(989 / 3.35)
