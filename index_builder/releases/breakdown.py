"""Breaks the results of a replay down by kind of request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index_builder.releases.replay import Replay, ReplayPair

ALL = "all"


def breakdown_rows(replay: Replay) -> list[dict[str, object]]:
    """Returns a row for all requests, and one for each segment.

    Columns: segment; requests; overlap@k, mean 0..1; unchanged, share of lists with equal ids in
        equal order; drift, mean difference of the best scores; refused; p50 and p99 latency of both
        snapshots in ms, and their ratio, second to first.
    """
    groups: dict[str, list[ReplayPair]] = {}
    for pair in replay.pairs:
        for name, value in pair.probe.segments().items():
            groups.setdefault(f"{name} {value}", []).append(pair)
    parts = [(ALL, list(replay.pairs)), *sorted(groups.items())]
    return [_row(name, pairs, replay.k) for name, pairs in parts]


def worst_pairs(replay: Replay, limit: int) -> list[ReplayPair]:
    """Returns the requests whose answers differ most; refused requests come first."""
    differing = [one for one in replay.pairs if one.refused or one.overlap < 1]
    return sorted(differing, key=lambda one: (not one.refused, one.overlap))[:limit]


def _row(name: str, pairs: Sequence[ReplayPair], k: int) -> dict[str, object]:
    drifts = [pair.drift for pair in pairs if pair.drift is not None]
    answered = [pair for pair in pairs if not pair.refused]
    times = np.array([[one.first.seconds, one.second.seconds] for one in answered]).reshape(-1, 2)
    row: dict[str, object] = {
        "segment": name,
        "requests": len(pairs),
        f"overlap@{k}": _mean([pair.overlap for pair in pairs], 4),
        "unchanged": _mean([_is_unchanged(pair, k) for pair in pairs], 4),
        "drift": _mean(drifts, 5),
        "refused": sum(bool(pair.refused) for pair in pairs),
    }
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        first, second = np.quantile(times, share, axis=0) * 1e3 if len(times) else (0.0, 0.0)
        row[f"{label}_ms_first"] = round(float(first), 3) if len(times) else None
        row[f"{label}_ms_second"] = round(float(second), 3) if len(times) else None
        row[f"{label}_ratio"] = round(float(second / first), 3) if first else None
    return row


def _mean(values: Sequence[float], digits: int) -> float | None:
    return round(float(np.mean(values)), digits) if values else None


def _is_unchanged(pair: ReplayPair, k: int) -> bool:
    return not pair.refused and pair.first.ids[:k] == pair.second.ids[:k]
