"""Figures of the benches: percentiles, what they were measured on, and their output."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import numpy as np
from numpy.typing import NDArray

from nearline_cli.terminal.output import print_json, print_table


def percentile_ms(latencies_s: Sequence[float] | NDArray[np.float64], percent: float) -> float:
    """Returns a percentile in milliseconds."""
    return round(float(np.percentile(latencies_s, percent)) * 1e3, 3)


def median_ms(rounds: Sequence[NDArray[np.float64]], percent: float) -> float:
    """Returns the median over rounds of a percentile of their latencies, in milliseconds."""
    return round(median(percentile_ms(latencies_s, percent) for latencies_s in rounds), 3)


def measured_on(*packages: str) -> dict[str, object]:
    """Returns the number of cores, and the versions of Python and of packages that are here."""
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cpus": len(os.sched_getaffinity(0)), "versions": versions}


def print_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Prints rows with the same names as lines of JSON, or as a table."""
    if not as_json:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
        return
    for row in rows:
        print_json(row)
