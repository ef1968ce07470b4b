"""Plots of two samples as inline SVG, for pages that need nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT, _LABELS = 720, 150, 20
_BINS = 20


def histogram(
    values: Sequence[float], label: str, *, low: float, high: float, bins: int = 11
) -> str:
    """Returns bars of how many values there are in each of some bins; `label` names the axis."""
    counts, edges = np.histogram(values, bins, (low, high))
    step, top = _WIDTH / bins, int(counts.max(initial=0)) or 1
    bars = [
        f'<rect x="{at * step + 1:.1f}" y="{_HEIGHT - count / top * (_HEIGHT - _LABELS):.1f}" '
        f'width="{step - 2:.1f}" height="{count / top * (_HEIGHT - _LABELS):.1f}">'
        f"<title>{edges[at]:.2f} to {edges[at + 1]:.2f}: {count:,}</title></rect>"
        for at, count in enumerate(counts.tolist())
    ]
    return _framed(bars, label, f"{low:g}", f"{high:g}", f"tallest bar: {top:,}")


def two_histograms(first: Sequence[float], second: Sequence[float], label: str) -> str:
    """Returns the bars of one sample, and a line over them for another."""
    both = np.array([*first, *second])
    if not len(both):
        return "<p>nothing to show</p>"
    low, high = float(both.min()), float(both.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = [
        np.histogram(one, _BINS, (low, high))[0] / max(len(one), 1) for one in (first, second)
    ]
    top, step = max(float(one.max()) for one in shares) or 1.0, _WIDTH / _BINS

    def y(share: float) -> float:
        return _HEIGHT - share / top * (_HEIGHT - _LABELS)

    bars = [
        f'<rect x="{at * step + 1:.1f}" y="{y(share):.1f}" width="{step - 2:.1f}" '
        f'height="{_HEIGHT - y(share):.1f}"/>'
        for at, share in enumerate(shares[0].tolist())
    ]
    line = " ".join(
        f"{at * step:.1f},{y(share):.1f} {(at + 1) * step:.1f},{y(share):.1f}"
        for at, share in enumerate(shares[1].tolist())
    )
    bars.append(
        f'<polyline points="{line}" style="stroke: var(--ink); opacity: 1; stroke-width: 2"/>'
    )
    return _framed(bars, label, f"{low:.3g}", f"{high:.3g}", "bars: candidate, line: live")


def quantiles(first: Sequence[float], second: Sequence[float], label: str) -> str:
    """Returns two samples sorted, as lines from the smallest to the largest value."""
    if not len(first) or not len(second):
        return "<p>nothing to show</p>"
    shares = np.linspace(0, 1, 101)
    ours, theirs = np.quantile(first, shares), np.quantile(second, shares)
    # The last hundredth would squeeze all others.
    top = float(max(ours[99], theirs[99])) * 1.2 or 1.0

    def drawn(values: Sequence[float], style: str) -> str:
        points = " ".join(
            f"{at * _WIDTH / 100:.1f},{_HEIGHT - min(value / top, 1.0) * (_HEIGHT - _LABELS):.1f}"
            for at, value in enumerate(values)
        )
        return f'<polyline points="{points}" style="opacity: 1; stroke-width: 2; {style}"/>'

    lines = [drawn(ours.tolist(), ""), drawn(theirs.tolist(), "stroke: var(--ink)")]
    told = f"blue: candidate, dark: live; top: {top:.2f}"
    return _framed(lines, label, "fastest", "slowest", told)


def _framed(drawn: Sequence[str], label: str, low: str, high: str, told: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _LABELS}" role="img" aria-label="{escape(label)}">'
        f'{"".join(drawn)}<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
        f'<text x="0" y="{_HEIGHT + 14}">{escape(low)}</text>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 14}" text-anchor="middle">{escape(label)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{escape(high)}</text>'
        f'<text x="{_WIDTH}" y="11" text-anchor="end">{escape(told)}</text></svg>'
    )
