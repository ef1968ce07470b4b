"""Tests of the figures of `python -m benchmarks.gpu`."""

from __future__ import annotations

import pytest

from benchmarks.gpu_parts.figures import COLUMNS, Figure, table_row


@pytest.mark.parametrize(
    ("value", "bar", "at_most", "passed"),
    [
        (20_000.0, 20_000.0, False, True),
        (19_999.0, 20_000.0, False, False),
        (10.0, 10.0, True, True),
        (10.1, 10.0, True, False),
        (0.999, 1.0, False, False),
        (None, 1.0, False, None),
        (5.0, None, False, None),
    ],
)
def test_a_figure_passes_if_its_value_reaches_the_bar(
    value: float | None, bar: float | None, at_most: bool, passed: bool | None
) -> None:
    assert Figure(name="a", value=value, bar=bar, at_most=at_most).passed is passed


def test_a_row_shows_the_share_of_the_limit() -> None:
    figure = Figure(
        name="queries",
        value=5_000.0,
        unit="queries/s",
        bar=8_000,
        limit=20_000,
        limited_by="bandwidth",
    )
    row = dict(zip(COLUMNS, table_row("flat", figure, rehearsal=False), strict=True))
    assert row == {
        "part": "flat",
        "figure": "queries",
        "bar": ">= 8,000",
        "value": "5,000 queries/s",
        "verdict": "miss",
        "limit": "20,000 (bandwidth)",
        "share": "25.0%",
        "note": "",
    }


def test_a_rehearsal_judges_only_recall() -> None:
    speed = table_row("flat", Figure(name="queries", value=9.0, bar=8.0), rehearsal=True)
    recall = table_row("flat", Figure(name="recall@10", value=0.99, bar=1.0), rehearsal=True)
    assert "rehearsal, not a GPU" in speed
    assert "miss" in recall and "0.99" in recall


def test_a_figure_that_was_not_measured_says_why() -> None:
    row = table_row("build", Figure(name="CAGRA", value=None, bar=10, note="none"), rehearsal=False)
    assert "not measured" in row and "none" in row and "miss" not in row
