"""Measures indexes on a sample of the vectors, to choose one by its performance there."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index_builder.indexes import golden_sample
from index_builder.indexes.exact_search import ExactResults, K, recall_of, scan
from index_builder.indexes.faiss_writer import (
    SearchDefaults,
    build_index,
    expected_bytes,
    one_thread,
    search_index,
)
from index_builder.options.build_options import COSINE, IndexOptions
from index_builder.options.index_selection import (
    DEFAULT_TARGET_RECALL,
    IndexCandidate,
    IndexChoice,
    IndexTrial,
    choose_trial,
    factories,
    ivf_lists,
)
from nearline.vectors import normalise

QUERIES = 300
# Limits of the sample: larger graphs take minutes to build on two cores.
_MAX_ROWS = 100_000
_MAX_NUMBERS = 10_000_000
_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
_PROBE_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
_LISTS = re.compile(r"^IVF(\d+)")
_TIMED = 100
_BATCH = 4
_REPEATS = 3
_ENOUGH = 0.9995
_LEAST_TRIED = 3


def choose_index(
    vectors: NDArray[np.float32],
    options: IndexOptions,
    shards: int,
    seed: int,
    advance: Callable[[int], None] = lambda factories: None,
    *,
    budget_s: float = 60.0,
) -> IndexChoice:
    """Builds indexes over a sample, measures each at several widths, and chooses one.

    Args:
        vectors: (n, d) float32 of the whole collection, mapped from disk; n >= 2.
        options: Targets, metric and ef_construction.
        shards: Number of shards of the collection.
        seed: Seed of the sample.
        advance: Called after each index.
        budget_s: Seconds after which no further index is built, once three are.
    Raises: InvalidRequest: no index meets the targets; the message names the nearest.
    """
    start = time.perf_counter()
    sample, *query_sets = _split(vectors, options.metric == COSINE, seed)
    k = min(K, len(sample))
    exact = [scan(sample, queries, k) for queries in query_sets]
    target_recall = options.target_recall or DEFAULT_TARGET_RECALL
    per_shard = -(-len(vectors) // shards)
    trials: list[IndexTrial] = []
    for number, factory in enumerate(factories(ivf_lists(len(sample)))):
        if number >= _LEAST_TRIED and time.perf_counter() - start > budget_s:
            break
        trials += _measure_factory(factory, sample, exact, options, seed, per_shard, shards)
        advance(1)
    chosen = choose_trial(trials, target_recall, options.max_bytes)
    return IndexChoice(
        chosen=chosen,
        trials=trials,
        target_recall=target_recall,
        max_bytes=options.max_bytes,
        sample=len(sample),
        seconds=time.perf_counter() - start,
    )


def apply_choice(options: IndexOptions, choice: IndexChoice) -> IndexOptions:
    """Returns the options for building the chosen index."""
    candidate = choice.chosen.candidate
    return replace(
        options,
        factory=candidate.factory,
        ef_search=candidate.ef_search or options.ef_search,
        nprobe=candidate.nprobe,
    )


def _split(
    vectors: NDArray[np.float32], unit: bool, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Returns vectors to index, and two kinds of queries: vectors held out, and mixtures.

    Held-out vectors resemble items, which lie near other items; mixtures resemble questions, which
    lie farther away.
    """
    most = min(_MAX_ROWS, max(1_000, _MAX_NUMBERS // vectors.shape[1]))
    held_out = max(1, min(QUERIES, len(vectors) // 10))
    chosen = golden_sample.sample_rows(len(vectors), most + held_out, seed)
    is_query = np.random.default_rng(seed).permutation(len(chosen)) < held_out
    queries = np.ascontiguousarray(vectors[chosen[is_query]], np.float32)
    sample = np.ascontiguousarray(vectors[chosen[~is_query]], np.float32)
    mixed = golden_sample.mixtures(
        sample, golden_sample.sample_rows(len(sample), len(queries), seed), seed, unit=unit
    )
    return sample, normalise(queries) if unit else queries, mixed


def _measure_factory(
    factory: str,
    sample: NDArray[np.float32],
    exact: Sequence[ExactResults],
    options: IndexOptions,
    seed: int,
    per_shard: int,
    shards: int,
) -> list[IndexTrial]:
    rows = np.arange(len(sample))
    index, _ = build_index(
        factory, sample, rows, options, shard=0, seed=seed, advance=lambda added: None
    )
    # The time of a scan grows with the number of vectors, that of a graph with its logarithm.
    growth = per_shard / len(sample)
    if "HNSW" in factory:
        growth = math.log2(max(2, per_shard)) / math.log2(max(2, len(sample)))
    measured = []
    for defaults in _widths(factory):
        recall, latency_us = _measure(index, sample, exact, defaults)
        candidate = _at_full_size(factory, defaults, per_shard)
        measured.append((candidate, recall, latency_us * max(1.0, growth)))
        # Larger widths would only cost more.
        if recall >= _ENOUGH:
            break
    size = shards * expected_bytes(index, per_shard, ivf_lists(per_shard))
    return [
        IndexTrial(candidate=candidate, recall=recall, latency_us=latency_us, bytes=size)
        for candidate, recall, latency_us in measured
    ]


def _widths(factory: str) -> list[SearchDefaults]:
    if "HNSW" in factory:
        return [SearchDefaults(width, 0) for width in _WIDTHS]
    lists = _LISTS.match(factory)
    if lists is None:
        return [SearchDefaults(0, 0)]
    probes = {max(1, round(share * int(lists[1]))) for share in _PROBE_SHARES}
    return [SearchDefaults(0, probe) for probe in sorted(probes)]


def _at_full_size(factory: str, defaults: SearchDefaults, per_shard: int) -> IndexCandidate:
    """Returns the candidate with the lists of a full shard, probing the same share of them."""
    lists = _LISTS.match(factory)
    if lists is None:
        return IndexCandidate(factory=factory, ef_search=defaults.ef_search)
    few, many = int(lists[1]), ivf_lists(per_shard)
    return IndexCandidate(
        factory=_LISTS.sub(f"IVF{many}", factory),
        nprobe=min(many, max(1, math.ceil(defaults.nprobe * many / few))),
    )


def _measure(
    index: object,
    sample: NDArray[np.float32],
    exact: Sequence[ExactResults],
    defaults: SearchDefaults,
) -> tuple[float, float]:
    """Returns recall, and microseconds per query in one thread, in batches as served."""
    k = exact[0].rows.shape[1]
    timed = exact[0].queries[:_TIMED]
    recalls, spent_s = [], []
    with one_thread():
        for known in exact:
            places, scores = search_index(index, known.queries, k, defaults)
            recalls.append(recall_of(known, sample, places, scores))
        for _ in range(_REPEATS):
            # CPU time, which excludes other load of the machine.
            start = time.thread_time()
            for first in range(0, len(timed), _BATCH):
                search_index(index, timed[first : first + _BATCH], k, defaults)
            spent_s.append(time.thread_time() - start)
    return min(recalls), min(spent_s) / len(timed) * 1e6
