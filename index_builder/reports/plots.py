"""Plots of one or two samples as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, LABELS = 720, 150, 20
_BINS = 20


def histogram(
    values: Sequence[float], label: str, *, low: float, high: float, bins: int = 11
) -> str:
    """Returns a histogram of values in bins from low to high; label names the axis."""
    counts, edges = np.histogram(values, bins, (low, high))
    titles = [
        f"{edges[at]:.2f} to {edges[at + 1]:.2f}: {count:,}"
        for at, count in enumerate(counts.tolist())
    ]
    top = int(counts.max(initial=0)) or 1
    shown = bars(counts.tolist(), titles, top)
    return _frame(shown, label, f"{low:g}", f"{high:g}", f"tallest bar: {top:,}")


def bars(heights: Sequence[float], titles: Sequence[str], top: float) -> list[str]:
    """Returns an SVG rectangle for each height, in a view box of WIDTH times HEIGHT + LABELS.

    Args:
        top: Height that fills the plot.
    """
    step = WIDTH / len(heights)
    scaled = [height / top * (HEIGHT - LABELS) for height in heights]
    return [
        f'<rect x="{at * step + 1:.1f}" y="{HEIGHT - height:.1f}" width="{step - 2:.1f}" '
        f'height="{height:.1f}"><title>{title}</title></rect>'
        for at, (height, title) in enumerate(zip(scaled, titles, strict=True))
    ]


def two_histograms(first: Sequence[float], second: Sequence[float], label: str) -> str:
    """Returns the histogram of the first sample as bars and of the second as a line."""
    both = np.array([*first, *second])
    if not len(both):
        return "<p>nothing to show</p>"
    low, high = float(both.min()), float(both.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = [
        np.histogram(one, _BINS, (low, high))[0] / max(len(one), 1) for one in (first, second)
    ]
    top, step = max(float(one.max()) for one in shares) or 1.0, WIDTH / _BINS

    def y(share: float) -> float:
        return HEIGHT - share / top * (HEIGHT - LABELS)

    shown = bars(shares[0].tolist(), [f"{share:.1%}" for share in shares[0]], top)
    line = " ".join(
        f"{at * step:.1f},{y(share):.1f} {(at + 1) * step:.1f},{y(share):.1f}"
        for at, share in enumerate(shares[1].tolist())
    )
    shown.append(
        f'<polyline points="{line}" style="stroke: var(--ink); opacity: 1; stroke-width: 2"/>'
    )
    return _frame(shown, label, f"{low:.3g}", f"{high:.3g}", "bars: candidate, line: live")


def quantiles(first: Sequence[float], second: Sequence[float], label: str) -> str:
    """Returns the quantile functions of two samples as lines."""
    if not len(first) or not len(second):
        return "<p>nothing to show</p>"
    shares = np.linspace(0, 1, 101)
    ours, theirs = np.quantile(first, shares), np.quantile(second, shares)
    # Outliers in the last hundredth would flatten the rest of the curve.
    top = float(max(ours[99], theirs[99])) * 1.2 or 1.0

    def polyline(values: Sequence[float], style: str) -> str:
        points = " ".join(
            f"{at * WIDTH / 100:.1f},{HEIGHT - min(value / top, 1.0) * (HEIGHT - LABELS):.1f}"
            for at, value in enumerate(values)
        )
        return f'<polyline points="{points}" style="opacity: 1; stroke-width: 2; {style}"/>'

    lines = [polyline(ours.tolist(), ""), polyline(theirs.tolist(), "stroke: var(--ink)")]
    legend = f"blue: candidate, dark: live; top: {top:.2f}"
    return _frame(lines, label, "fastest", "slowest", legend)


def _frame(shapes: Sequence[str], label: str, low: str, high: str, legend: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + LABELS}" role="img" aria-label="{escape(label)}">'
        f'{"".join(shapes)}<line x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>'
        f'<text x="0" y="{HEIGHT + 14}">{escape(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 14}" text-anchor="middle">{escape(label)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">{escape(high)}</text>'
        f'<text x="{WIDTH}" y="11" text-anchor="end">{escape(legend)}</text></svg>'
    )
