"""Plots speed and latency over recall, if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers.comparison import frontier
from benchmarks.peers.measurement import Point

# File, field of a point, label of the axis.
_PICTURES = (
    ("qps.png", "qps", "searches per second"),
    ("p50.png", "p50_ms", "p50, ms"),
    ("p99.png", "p99_ms", "p99, ms"),
)


def missing() -> str:
    """Returns what to install; empty if nothing."""
    return "" if find_spec("matplotlib") else "pip: matplotlib"


def plot(points: Sequence[Point], labels: Mapping[str, str], folder: Path, title: str) -> None:
    """Writes a picture of the speed and one of each latency, with a panel for each filter."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    attributes = list(dict.fromkeys(point.attribute for point in points))
    for file, name, text in _PICTURES:
        figure, axes = pyplot.subplots(
            *(1, len(attributes)),
            figsize=(8.0 * len(attributes), 7.0),
            squeeze=False,
            layout="constrained",
        )
        for panel, attribute in zip(axes[0], attributes, strict=True):
            mine = [point for point in points if point.attribute == attribute]
            for system in dict.fromkeys(point.system for point in mine):
                best = frontier([point for point in mine if point.system == system])
                recalls = [point.recall for point in best]
                values = [getattr(point, name) for point in best]
                panel.plot(recalls, values, marker="o", label=labels[system])
            panel.set(xlabel="recall", ylabel=text, yscale="log")
            panel.set_title(f"filter: {attribute}" if attribute else "no filter")
            panel.grid(visible=True, which="both", alpha=0.3)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.suptitle(title)
        figure.savefig(folder / file, dpi=110)
        pyplot.close(figure)
