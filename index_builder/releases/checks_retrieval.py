"""Checks search results: recall of the index, agreement with the live snapshot, and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index_builder.evaluation import retrieval_metrics
from index_builder.indexes.golden_sample import mixtures
from index_builder.releases.comparison import OFF, Comparison
from index_builder.releases.gate_report import Check, CheckOutcome, SkippedCheck, make_check
from index_builder.releases.judgements import JudgedQueries, read_judgements
from index_builder.releases.probes import Probe
from index_builder.releases.replay import ReplayPair, repeat_replay
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline import contract as c
from nearline.errors import NearlineError
from retrieval.monitoring.recall_metrics import compute_recall
from retrieval.protocols.shard import ShardQueries
from retrieval.search import executor
from retrieval.search.queries import QueryBatch, align_to_metric, prepare_queries
from retrieval.search.request_context import RequestContext
from retrieval.snapshots.golden_queries import RECALL_SLACK

K = 10
_MAX_QUERIES = 200
# Exact scans per call, computed as one matrix product.
_BATCH = 16
_JUDGED_BATCH = 32
# A smaller difference is harmless; its ratio would be due to chance.
_SMALL_LATENCY_S = 0.002
_MIN_TIMED = 20
_CHUNKS = c.SearchOptions(k=K, level=c.HitLevel.CHUNK, explain=True)


async def check_recall(comparison: Comparison) -> Check:
    """Compares the index with an exact scan of its own vectors, at its serving search width.

    Uses golden and recorded queries or, if there are none, mixtures of two stored vectors.
    """
    limit = comparison.limits.min_recall
    comparison.require_enabled(limit)
    snapshot = comparison.candidate
    queries = _queries(snapshot, comparison.probes)
    if not len(queries):
        raise SkippedCheck("the snapshot has no vectors")
    recalls = await recalls_of(snapshot, queries)
    mean = float(np.mean(recalls))
    promised = snapshot.manifest.quality
    found = f"recall@{K} {mean:.4f} over {len(queries)} queries"
    # Routers refuse to load an index whose recall is this far below its manifest.
    least = limit
    if promised.queries:
        least = max(limit, promised.recall_at_10 - RECALL_SLACK)
        found += f" (the manifest says {promised.recall_at_10:.4f})"
    remedy = (
        "the search is too narrow or the index too coarse: build with a larger --ef-search or "
        f"--nprobe, or with --target-recall {max(limit, 0.95):g}; to accept less, run nearline "
        "gate set --min-recall"
    )
    return make_check("recall", mean >= least, found, remedy, mean, round(least, 4))


async def recalls_of(snapshot: LoadedSnapshot, queries: NDArray[np.float32]) -> Sequence[float]:
    """Returns recall@10 of each query against an exact scan: (n,) numbers in 0..1.

    Args:
        queries: (n, d) float32, at unit length if the metric is cosine.
    """
    served = snapshot.served
    recalls: list[float] = []
    for at in range(0, len(queries), _BATCH):
        part = queries[at : at + _BATCH]
        batch = QueryBatch(c.SearchMode.DENSE, list(range(len(part))), ShardQueries(part))
        near = await executor.search(served, batch, _CHUNKS, RequestContext())
        exact = await executor.search(served, batch, replace(_CHUNKS, exact=True), RequestContext())
        recalls += [
            compute_recall(best, found, chunks=True).recall
            for best, found in zip(exact.lists, near.lists, strict=True)
            if best
        ]
    return recalls


def _queries(snapshot: LoadedSnapshot, probes: Sequence[Probe]) -> NDArray[np.float32]:
    rows = [] if snapshot.golden is None else list(snapshot.golden.vectors[:_MAX_QUERIES])
    recorded = [
        vector
        for one in probes
        if one.fingerprint == snapshot.fingerprint
        and (vector := one.vector if one.query is None or one.query.text else one.query.vector)
        is not None
        and vector.shape == (snapshot.manifest.dim,)
        and float(np.abs(vector).max(initial=0)) > 0
    ]
    rows += recorded[:_MAX_QUERIES]
    if not rows:
        rows = list(_stored_mixtures(snapshot))
    if not rows:
        return np.empty((0, snapshot.manifest.dim), np.float32)
    return align_to_metric(snapshot.served, np.stack(rows).astype(np.float32))


def _stored_mixtures(snapshot: LoadedSnapshot) -> NDArray[np.float32]:
    parts = []
    rng = np.random.default_rng(0)
    for one in snapshot.shards:
        base = one.shard.base
        most = min(base.items.chunks, 2 * _MAX_QUERIES // len(snapshot.shards))
        rows = np.sort(rng.choice(base.items.chunks, most, replace=False)).astype(np.int64)
        parts.append(base.index.reconstruct(rows))
    stored = np.concatenate(parts)
    rows = np.arange(0, len(stored), 2)
    return mixtures(stored, rows, 0, unit=snapshot.served.unit_length)


def check_overlap(comparison: Comparison) -> Check:
    """Compares the ten best results of searches with those of the live snapshot.

    Recommendations change with every training and are judged by later interactions instead. A
    search that the candidate refuses has an overlap of 0.
    """
    limit, replay = comparison.limits.min_overlap, comparison.replay
    comparison.require_enabled(limit)
    pairs = [] if replay is None else [one for one in replay.pairs if one.probe.query is not None]
    if replay is None or not pairs:
        raise SkippedCheck(_no_requests(comparison))
    refused = [one for one in replay.pairs if one.refused]
    mean = float(np.mean([one.overlap for one in pairs]))
    found = (
        f"{mean:.0%} of the {replay.k} best results match the live snapshot, over {len(pairs)} "
        f"searches ({replay.source})"
    )
    if refused:
        found += f"; {len(refused)} requests are refused, for example: {refused[0].refused}"
    remedy = (
        "results would change: inspect the differences with nearline replay --against LIVE "
        "CANDIDATE; if they are intended, run a canary (nearline rollout start), or use --force "
        "with a reason"
    )
    return make_check("overlap", mean >= limit, found, remedy, mean, limit)


async def check_ndcg(comparison: Comparison) -> Check:
    """Searches for judged queries as texts, and compares nDCG with the live snapshot."""
    limits = comparison.limits
    if limits.min_ndcg < 0 and limits.max_ndcg_loss < 0:
        raise SkippedCheck(OFF)
    if not comparison.judgements_sha256:
        raise SkippedCheck(
            "there are no judged queries; add them with nearline gate set --labels DIR"
        )
    snapshot = comparison.candidate
    labels = read_judgements(snapshot.store, snapshot.served.name, comparison.judgements_sha256)
    try:
        ours = await _ndcg(snapshot, labels)
    except NearlineError as error:
        raise SkippedCheck(
            f"its judged queries could not be searched ({error.message}); pass the embedding "
            "service of its model with --embedding",
        ) from error
    least, note = limits.min_ndcg, ""
    if comparison.live is not None and limits.max_ndcg_loss >= 0:
        try:
            theirs = await _ndcg(comparison.live, labels)
        except NearlineError as error:
            note = f" (the live snapshot could not be searched: {error.message})"
            if least < 0:
                raise SkippedCheck(
                    f"nDCG@10 is {ours:.4f}, with nothing to compare{note}"
                ) from error
        else:
            least = max(least, theirs - limits.max_ndcg_loss)
            note = f" (the live snapshot {theirs:.4f})"
    if least < 0:
        raise SkippedCheck(f"nDCG@10 is {ours:.4f}, and there is no limit")
    found = f"nDCG@10 is {ours:.4f} over {len(labels.queries)} judged queries{note}"
    remedy = (
        "look for missing documents, other chunking or another model; tune the fusion weight with "
        "--tune-on"
    )
    return make_check("ndcg", ours >= least, found, remedy, ours, round(least, 4))


async def _ndcg(snapshot: LoadedSnapshot, labels: JudgedQueries) -> float:
    served = snapshot.served
    options = c.SearchOptions(k=K, plain_text=True)
    names = list(labels.queries)
    rankings: dict[str, list[str]] = {}
    for at in range(0, len(names), _JUDGED_BATCH):
        part = names[at : at + _JUDGED_BATCH]
        queries = [c.Query(text=labels.queries[name]) for name in part]
        prepared = await prepare_queries(
            served, snapshot.embedders, queries, part, options, RequestContext()
        )
        for batch in prepared.batches:
            outcome = await executor.search(served, batch, options, RequestContext())
            for number, hits in zip(batch.numbers, outcome.lists, strict=True):
                rankings[part[number]] = [hit.id for hit in hits]
    return retrieval_metrics.score(rankings, labels.judgements)["ndcg@10"]


def _no_requests(comparison: Comparison) -> str:
    if comparison.live is None:
        return comparison.alone
    if comparison.replay is not None and comparison.replay.left_out:
        reasons = "; ".join(f"{count} {why}" for why, count in comparison.replay.left_out.items())
        return f"no request could be sent to both snapshots: {reasons}"
    return "no requests were recorded, and the live snapshot has no golden queries"


async def check_latency(comparison: Comparison) -> Check:
    """Compares the p99 latency of requests that both snapshots answered in alternation.

    If the candidate was slower, the requests are sent once more, and for each request and
    snapshot the shorter time counts: other processes may have delayed the first.
    """
    comparison.require_live(comparison.limits.max_latency_ratio)
    limit = comparison.limits.max_latency_ratio * comparison.growth
    replay = comparison.replay
    pairs = [] if replay is None else replay.answered
    if replay is None or len(pairs) < _MIN_TIMED:
        raise SkippedCheck(
            f"both snapshots answered {len(pairs)} requests; {_MIN_TIMED} are needed"
        )
    times = _times(pairs)
    check = _latency_check(times, limit)
    if check.outcome is CheckOutcome.FAILED:
        again = await repeat_replay(replay)
        if len(again.answered) == len(pairs):
            check = _latency_check(np.minimum(times, _times(again.answered)), limit)
    return check


def _times(pairs: Sequence[ReplayPair]) -> NDArray[np.float64]:
    """Returns the times of the live snapshot and of the candidate in seconds: (2, requests)."""
    sides = [one.first for one in pairs], [one.second for one in pairs]
    return np.array([[one.seconds for one in side] for side in sides])


def _latency_check(times: NDArray[np.float64], limit: float) -> Check:
    theirs, ours = (float(one) for one in np.quantile(times, 0.99, axis=1))
    ratio = ours / theirs if theirs else 1.0
    found = (
        f"p99 is {ours * 1e3:.2f} ms against {theirs * 1e3:.2f} ms over {times.shape[1]} "
        "requests, sent to both alternately"
    )
    remedy = (
        "reduce --ef-search or --nprobe, add shards, or choose another index (--target-recall "
        "measures several); or raise the limit with nearline gate set --max-latency-ratio"
    )
    ok = ratio <= limit or ours - theirs <= _SMALL_LATENCY_S
    return make_check("latency", ok, found, remedy, ratio, limit)
