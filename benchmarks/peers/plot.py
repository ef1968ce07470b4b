"""Plots speed and latency over recall, if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers.comparison import frontier
from benchmarks.peers.measurement import Point

_AXES = (("qps", "searches per second"), ("p99_ms", "p99, ms"))


def missing() -> str:
    """Returns what to install; empty if nothing."""
    return "" if find_spec("matplotlib") else "pip: matplotlib"


def plot(points: Sequence[Point], labels: Mapping[str, str], path: Path, title: str) -> None:
    """Writes a picture: a row for each filter; speed at the left, p99 at the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    attributes = list(dict.fromkeys(point.attribute for point in points))
    figure, axes = pyplot.subplots(
        *(len(attributes), 2), figsize=(13, 5.5 * len(attributes)), squeeze=False
    )
    for row, attribute in enumerate(attributes):
        mine = [point for point in points if point.attribute == attribute]
        for column, (name, text) in enumerate(_AXES):
            place = axes[row, column]
            for system in dict.fromkeys(point.system for point in mine):
                best = frontier([point for point in mine if point.system == system])
                recalls = [point.recall for point in best]
                values = [getattr(point, name) for point in best]
                place.plot(recalls, values, marker="o", label=labels[system])
            place.set(xlabel="recall", ylabel=text, yscale="log")
            place.set_title(f"filter: {attribute}" if attribute else "no filter")
            place.grid(visible=True, which="both", alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
