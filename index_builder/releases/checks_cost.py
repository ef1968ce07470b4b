"""Checks the embedder of a snapshot, its size, and its loading time and latency."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check, CheckOutcome, SkippedCheck, make_check
from index_builder.releases.replay import ReplayPair, repeat_replay
from index_builder.releases.snapshot_loader import load_snapshot
from nearline.errors import Overloaded

# Differences this small are harmless; their ratio would be due to chance.
_SMALL_BYTES = 64 << 20
_SMALL_LOAD_S = 5.0
_SMALL_LATENCY_S = 0.002
_MIN_TIMED = 20


def check_model(comparison: Comparison) -> Check:
    """Compares the embedder with that of the live snapshot."""
    live, candidate = comparison.require_live(), comparison.candidate
    ours, theirs = _model(comparison), live.manifest.embedder.fingerprint or "brought vectors"
    theirs = f"{theirs}, dim {live.manifest.dim}"
    if comparison.same_model:
        return make_check("model", True, f"the embedder is that of the live snapshot: {ours}")
    found = f"another embedder: {ours}; the live snapshot has {theirs}"
    if comparison.allow_model_change:
        return make_check("model", True, f"{found}; this was allowed")
    remedy = (
        "roll it out with both embedders running (nearline rollout start "
        f"{candidate.id}), or pass --allow-model-change if the routers have the new one"
    )
    return make_check("model", False, found, remedy)


def _model(comparison: Comparison) -> str:
    manifest = comparison.candidate.manifest
    return f"{manifest.embedder.fingerprint or 'brought vectors'}, dim {manifest.dim}"


def check_size(comparison: Comparison) -> Check:
    """Compares the size of the files."""
    live = comparison.require_live(comparison.limits.max_size_ratio)
    limit = comparison.limits.max_size_ratio * comparison.growth
    ours, theirs = comparison.candidate.bytes, live.bytes
    ratio = ours / theirs if theirs else 1.0
    found = f"{ours:,} bytes, {ratio:.2f} times the live snapshot"
    remedy = (
        "if the shards have memory for both during the change, run nearline gate set "
        f"--max-size-ratio {np.ceil(ratio):g}; otherwise build a smaller index: --max-memory"
    )
    ok = ratio <= limit or ours - theirs <= _SMALL_BYTES
    return make_check("size", ok, found, remedy, ratio, limit)


async def check_load_time(comparison: Comparison) -> Check:
    """Compares the time to load and warm, with the files on this machine.

    A candidate that was slower is loaded once more, and the shorter time counts: the first load
    also reads files from disk and imports libraries, and other processes may have delayed it.
    """
    live = comparison.require_live(comparison.limits.max_load_ratio)
    limit = comparison.limits.max_load_ratio * comparison.growth
    candidate = comparison.candidate
    ours, theirs = candidate.load_s, live.load_s

    def ok() -> bool:
        return ours <= limit * theirs or ours - theirs <= _SMALL_LOAD_S

    if not ok():
        with contextlib.suppress(Overloaded):
            async with load_snapshot(
                candidate.store, candidate.manifest.collection, candidate.id, {}
            ) as again:
                ours = min(ours, again.load_s)
    ratio = ours / theirs if theirs else 1.0
    found = f"{ours:.2f} s to load and warm, {ratio:.2f} times the live snapshot"
    remedy = (
        "routers and shards take this long to start: repeat the check on an idle machine; then "
        "raise the limit with nearline gate set --max-load-ratio, or use more shards"
    )
    return make_check("load_time", ok(), found, remedy, ratio, limit)


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
