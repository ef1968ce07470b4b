"""HTML report of `nearline eval rag`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from index_builder.reports.html import figures, page, table

if TYPE_CHECKING:
    from generation.training.evaluation import CalibrationEvaluation

_WIDTH, _HEIGHT, _LEFT, _FOOT = 720, 240, 36, 20
_SHOWN = (
    *("offset_accuracy", "sentence_recall@3", "sentence_recall@5"),
    *("sentence_recall_end_to_end@5", "auroc_off_topic", "auroc_no_evidence", "risk@0.5"),
)


def render_rag_report(
    name: str, records: Sequence[Mapping[str, object]], evaluations: Sequence[CalibrationEvaluation]
) -> str:
    """Returns the page.

    Args:
        name: Name of the data set.
        records: Figures of each calibration.
        evaluations: The evaluations behind them, in the same order.
    """
    parts = [f"<h1>Answers from {escape(name)}</h1>"]
    for record, evaluation in zip(records, evaluations, strict=True):
        parts += [
            f"<h2>Trained on: {escape(str(record['trained_on']))}</h2>",
            figures([(_text(record[key]), key) for key in _SHOWN]),
            "<p>Risk is the share of answered questions without evidence in the collection, "
            "plotted over the share of questions answered. The dashed line is the target, the dot "
            "the result of the threshold.</p>",
            _curve(evaluation, record["target_risk"]),
            table((key, _text(value)) for key, value in record.items() if key != "trained_on"),
        ]
    return page(f"{name}: answers", parts)


def _curve(evaluation: CalibrationEvaluation, target: object) -> str:
    top = max(0.05, *(point.risk for point in evaluation.curve))

    def place(coverage: float, risk: float) -> str:
        x = _LEFT + coverage * (_WIDTH - _LEFT)
        return f"{x:.1f},{_HEIGHT - risk / top * (_HEIGHT - _FOOT):.1f}"

    line = " ".join(place(point.coverage, point.risk) for point in evaluation.curve)
    marks = "".join(
        f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH}" y2="{y}"/>'
        f'<text x="0" y="{float(y) + 4:.1f}">{value:.2f}</text>'
        for value in (0.0, top / 2, top)
        for y in [place(0, value).split(",")[1]]
    )
    labels = "".join(
        f'<text x="{place(value, 0).split(",")[0]}" y="{_HEIGHT + 14}" '
        f'text-anchor="{"end" if value == 1 else "middle"}">{value:.0%}</text>'
        for value in (0.25, 0.5, 0.75, 1.0)
    )
    if isinstance(target, float) and target <= top:
        y = place(0, target).split(",")[1]
        marks += f'<line class="target" x1="{_LEFT}" y1="{y}" x2="{_WIDTH}" y2="{y}"/>'
    x, y = place(evaluation.operating.coverage, evaluation.operating.risk).split(",")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img" '
        f'aria-label="Risk by coverage">{marks}<polyline points="{line}" stroke-width="2"/>'
        f'<circle class="chosen" cx="{x}" cy="{y}" r="4"><title>answers '
        f"{evaluation.operating.coverage:.0%} at risk "
        f"{evaluation.operating.risk:.3f}</title></circle>{labels}</svg>"
    )


def _text(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
