"""The cost of exact search: all vectors in fp16 on GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearline_cli.sizing.cards import Card

_FP16_BYTES = 2
# A distance is written by the product of matrices as fp16, and read once to find the best groups;
# what is read of the groups again is little. Source: retrieval/index/gpu/matrix.py.
_DISTANCE_BYTES = 2 + 2
# Queries of a call. Source: retrieval/index/gpu/search_queue.py.
MOST_QUERIES = 1_024


def flat_bytes(vectors: float, dim: int) -> float:
    """Returns the bytes of the vectors in fp16: 2 x vectors x dim."""
    return _FP16_BYTES * vectors * dim


def cards_for_memory(needed: float, card: Card, scratch: float) -> int:
    """Returns the number of cards that hold these bytes, split into shards, a card each.

    Source: arithmetic.

    Args:
        scratch: Bytes of each card that hold no vectors; less than its memory.
    """
    return max(1, math.ceil(needed / (card.memory - scratch)))


def read_seconds(vectors: float, dim: int, card: Card) -> float:
    """Returns the seconds in which every vector is read once, for a batch of any size.

    Source: roofline model (Williams, Waterman and Patterson, 2009).
    """
    return flat_bytes(vectors, dim) / card.bandwidth


def distance_seconds(vectors: float, batch: int, card: Card) -> float:
    """Returns the seconds in which the distances of a batch are written and read.

    Source: see `_DISTANCE_BYTES`. No cache holds them: a tile has up to 1 GiB.
    """
    return _DISTANCE_BYTES * vectors * batch / card.bandwidth


def arithmetic_seconds(vectors: float, dim: int, batch: int, card: Card) -> float:
    """Returns the seconds of the products: 2 x vectors x dim operations for each query.

    Source: a multiplication and an addition for each number of each vector.
    """
    return 2 * vectors * dim * batch / card.flops


def scan_seconds(vectors: float, dim: int, batch: int, card: Card) -> float:
    """Returns the seconds of a batch on one card: of memory or arithmetic, whichever takes longer.

    Source: roofline model, of the three functions above.
    """
    memory = read_seconds(vectors, dim, card) + distance_seconds(vectors, batch, card)
    return max(memory, arithmetic_seconds(vectors, dim, batch, card))


def crossover_batch(card: Card) -> float:
    """Returns the batch whose arithmetic takes as long as reading the vectors.

    Source: `read_seconds` = `arithmetic_seconds`: two bytes and, for each query, two operations for
    each number of a vector, so the batch is FLOP/s / (bytes/s).
    """
    return card.flops / card.bandwidth


def distance_crossover_batch(dim: int) -> float:
    """Returns the batch whose distances take as long as reading the vectors, on any card.

    Source: `read_seconds` = `distance_seconds`: 2 x dim bytes and, for each query, four bytes for
    each vector.
    """
    return _FP16_BYTES * dim / _DISTANCE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatSearchPlan:
    """The cost of exact search.

    bytes: Of the vectors, once. cards_for_memory, cards_for_rate: Cards; `cards` is the larger.
    read_qps, distance_qps, arithmetic_qps: Queries per second of one card with all vectors, by each
    limit alone. qps: By all of them. batch_ms: Milliseconds of a batch on it. crossover_batch,
    distance_crossover_batch: See the functions of these names.
    """

    bytes: float
    cards_for_memory: int
    cards_for_rate: int
    cards: int
    read_qps: float
    distance_qps: float
    arithmetic_qps: float
    qps: float
    batch_ms: float
    crossover_batch: float
    distance_crossover_batch: float


def plan_flat_search(
    card: Card,
    *,
    vectors: float,
    dim: int,
    queries: float,
    batch: int,
    snapshots: int,
    scratch: float,
    load: float,
) -> FlatSearchPlan:
    """Returns the cost of exact search.

    A second card holds half of the vectors, or all of them for half of the queries: either way two
    cards answer twice as many queries per second.

    Args:
        card: The card, with the bandwidth and the operations that it really reaches.
        queries: Per second.
        batch: Queries that are searched together, 1..1,024.
        snapshots: Copies of the vectors on the cards: two while one replaces the other.
        scratch: Bytes of each card that hold no vectors; less than its memory.
        load: Share of the rate that is planned for, in (0, 1].
    """
    scan_s = scan_seconds(vectors, dim, batch, card)
    qps = batch / scan_s
    size = flat_bytes(vectors, dim)
    for_memory = cards_for_memory(snapshots * size, card, scratch)
    for_rate = max(1, math.ceil(queries / (load * qps)))
    return FlatSearchPlan(
        bytes=size,
        cards_for_memory=for_memory,
        cards_for_rate=for_rate,
        cards=max(for_memory, for_rate),
        read_qps=batch / read_seconds(vectors, dim, card),
        distance_qps=batch / distance_seconds(vectors, batch, card),
        arithmetic_qps=batch / arithmetic_seconds(vectors, dim, batch, card),
        qps=qps,
        batch_ms=scan_s * 1e3,
        crossover_batch=crossover_batch(card),
        distance_crossover_batch=distance_crossover_batch(dim),
    )
