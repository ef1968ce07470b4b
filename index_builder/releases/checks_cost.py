"""Checks of what a snapshot is and costs: its model, its size, how fast it loads and answers."""

from __future__ import annotations

import numpy as np

from index_builder.releases.comparison import OFF, Comparison
from index_builder.releases.gate_report import Check, make_check, skip_check

# What is so small is no trouble whatever its share, and its ratio is chance.
_SMALL_BYTES = 64 << 20
_SMALL_LOAD_S = 1.0
_SMALL_LATENCY_S = 0.002
_LEAST_TIMED = 20


def check_model(seen: Comparison) -> Check:
    """Compares the embedder with that of the live snapshot."""
    live, candidate = seen.live, seen.candidate
    if live is None:
        return skip_check("model", seen.alone)
    ours, theirs = _model(seen), live.manifest.embedder.fingerprint or "brought vectors"
    theirs = f"{theirs}, dim {live.manifest.dim}"
    if seen.same_model:
        return make_check("model", True, f"the embedder is that of the live snapshot: {ours}")
    found = f"another embedder: {ours}; the live snapshot has {theirs}"
    if seen.allow_model_change:
        return make_check("model", True, f"{found}, and that was allowed")
    remedy = (
        "roll it out with both embedders running (nearline rollout start "
        f"{candidate.id}), or --allow-model-change where the routers have the new one"
    )
    return make_check("model", False, found, remedy)


def _model(seen: Comparison) -> str:
    manifest = seen.candidate.manifest
    return f"{manifest.embedder.fingerprint or 'brought vectors'}, dim {manifest.dim}"


def check_size(seen: Comparison) -> Check:
    """Compares the size of the files."""
    limit, live = seen.limits.max_size_ratio, seen.live
    if limit < 0:
        return skip_check("size", OFF)
    if live is None:
        return skip_check("size", seen.alone)
    ours, theirs = seen.candidate.bytes, live.bytes
    ratio = ours / theirs if theirs else 1.0
    found = f"{ours:,} bytes, {ratio:.2f} times the live snapshot"
    remedy = (
        "see that the shards have the memory for both while one takes over from the other; then "
        f"nearline gate set --max-size-ratio {np.ceil(ratio):g}, or a smaller index: --max-memory"
    )
    ok = ratio <= limit or ours - theirs <= _SMALL_BYTES
    return make_check("size", ok, found, remedy, ratio, limit)


def check_load_time(seen: Comparison) -> Check:
    """Compares how long loading and warming take, files being on this machine."""
    limit, live = seen.limits.max_load_ratio, seen.live
    if limit < 0:
        return skip_check("load_time", OFF)
    if live is None:
        return skip_check("load_time", seen.alone)
    ours, theirs = seen.candidate.load_s, live.load_s
    ratio = ours / theirs if theirs else 1.0
    found = f"{ours:.2f} s to load and warm, {ratio:.2f} times the live snapshot"
    remedy = (
        "a router and every shard take that long to come up: try again on an idle machine; then "
        "nearline gate set --max-load-ratio, or more shards"
    )
    ok = ratio <= limit or ours - theirs <= _SMALL_LOAD_S
    return make_check("load_time", ok, found, remedy, ratio, limit)


def check_latency(seen: Comparison) -> Check:
    """Compares the 99th percentile of the latency of requests that both answered in turns."""
    limit, live = seen.limits.max_latency_ratio, seen.live
    if limit < 0:
        return skip_check("latency", OFF)
    if live is None:
        return skip_check("latency", seen.alone)
    replay = seen.replay
    pairs = [] if replay is None else [one for one in replay.pairs if not one.refused]
    if len(pairs) < _LEAST_TIMED:
        return skip_check(
            "latency", f"{len(pairs)} requests could be asked of both, {_LEAST_TIMED} are needed"
        )
    theirs, ours = (
        float(np.quantile([one.seconds for one in side], 0.99))
        for side in ([one.first for one in pairs], [one.second for one in pairs])
    )
    ratio = ours / theirs if theirs else 1.0
    found = (
        f"p99 {ours * 1e3:.2f} ms against {theirs * 1e3:.2f} ms over {len(pairs)} requests, each "
        "asked of both in turns"
    )
    remedy = (
        "it answers more slowly: a smaller --ef-search or --nprobe, more shards, or another index "
        "(--target-recall measures); then nearline gate set --max-latency-ratio"
    )
    ok = ratio <= limit or ours - theirs <= _SMALL_LATENCY_S
    return make_check("latency", ok, found, remedy, ratio, limit)
