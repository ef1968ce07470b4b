"""Ratios to baselines, as measured and as kept in a file, and how they drift."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from nearline.errors import InvalidRequest

# Of each ratio: what it is, and whether a larger one is better.
RATIOS: Mapping[str, tuple[str, bool]] = {
    "search_cpu_to_floor": ("CPU of a search to one of the gRPC and FAISS floor server", False),
    "search_to_floor": ("searches a second to the floor server's", True),
    "batch_to_raw": ("queries a second by SearchBatch to FAISS in process", True),
    "list_cpu_to_echo": ("CPU of the router for a hot list to an empty call's", False),
    "list_p99_to_echo": ("p99 of hot lists to that of an empty call", False),
    "floor_to_raw": ("searches a second of the floor server to FAISS: the machine alone", True),
}
WITHIN, BETTER, WORSE = "within the noise", "better", "worse"
ONE, NEW = "one round only", "no baseline"
# One command varies by 5 to 10 % between runs (docs/performance.md).
_NOISE = 0.1


class Ratio(NamedTuple):
    """A ratio over rounds: its least, median and largest value, all above 0."""

    low: float
    median: float
    high: float


class Drift(NamedTuple):
    """The drift of a ratio.

    change: Relative change of the median; None without a baseline. remark: WITHIN if the ranges of
        both overlap or the medians differ by less than a tenth, else BETTER or WORSE; ONE if one of
        them is a single round, which has no range; NEW without a baseline.
    """

    name: str
    before: Ratio | None
    now: Ratio
    change: float | None
    remark: str


def summarise(values: Sequence[float]) -> Ratio:
    """Returns the ratio of rounds, of which there is at least one."""
    low, middle, high = (round(one, 4) for one in (min(values), median(values), max(values)))
    return Ratio(low, middle, high)


def compare(before: Mapping[str, Ratio], now: Mapping[str, Ratio]) -> list[Drift]:
    """Returns the drift of each ratio that was measured now."""
    drifts = []
    for name, ratio in now.items():
        old = before.get(name)
        if old is None:
            drifts.append(Drift(name, None, ratio, None, NEW))
            continue
        change = ratio.median / old.median - 1
        remark = WITHIN
        apart = ratio.low > old.high or ratio.high < old.low
        if old.low == old.high or ratio.low == ratio.high:
            remark = ONE
        elif apart and abs(change) >= _NOISE:
            _, larger_is_better = RATIOS[name]
            remark = BETTER if (change > 0) is larger_is_better else WORSE
        drifts.append(Drift(name, old, ratio, change, remark))
    return drifts


def read_baseline(path: Path) -> dict[str, Ratio]:
    """Returns the ratios of a file, without names that are no longer measured.

    No file is an empty baseline.

    Raises:
        InvalidRequest: It has other content.
    """
    if not path.exists():
        return {}
    try:
        ratios = {
            name: Ratio(*map(float, values))
            for name, values in json.loads(path.read_text("utf-8"))["ratios"].items()
            if name in RATIOS
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f"{path} is no baseline ({type(error).__name__}: {error}); write one with --write",
            field="baseline",
        ) from error
    for name, ratio in ratios.items():
        if not 0 < ratio.low <= ratio.median <= ratio.high < math.inf:
            raise InvalidRequest(
                f"{path}: {name} is {list(ratio)}; three ascending numbers above 0 are needed; "
                "write a baseline with --write",
                field="baseline",
            )
    return ratios


def write_baseline(path: Path, ratios: Mapping[str, Ratio], about: Mapping[str, object]) -> None:
    """Writes the ratios, and what they were measured with."""
    content = {"about": dict(about), "ratios": {name: list(one) for name, one in ratios.items()}}
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
