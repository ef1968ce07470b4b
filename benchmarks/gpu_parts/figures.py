"""Measured figures, each with its bar and the limit of the card beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("part", "figure", "bar", "value", "verdict", "limit", "share", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured figure.

    value: None if it was not measured; `note` says why. unit: For example "texts/s". bar: What it
    should reach; None for figures that only inform. at_most: Whether the bar is an upper one.
    limit: What the card allows, in the unit of the value; 0 if there is no such limit. limited_by:
    "FLOP" or "bandwidth".
    """

    name: str
    value: float | None
    unit: str = ""
    bar: float | None = None
    at_most: bool = False
    limit: float = 0.0
    limited_by: str = ""
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the value reaches the bar; None without one of them."""
        if self.value is None or self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def table_row(part: str, figure: Figure, *, rehearsal: bool) -> Sequence[str]:
    """Returns the cells of a figure, see `COLUMNS`; of a rehearsal, only recall is judged."""
    bar, limit, share = "", "", ""
    if figure.bar is not None:
        bar = f"{'<=' if figure.at_most else '>='} {_number(figure.bar)}"
    if figure.limit:
        limit = f"{_number(figure.limit)} ({figure.limited_by})"
    if figure.limit and figure.value is not None:
        share = f"{figure.value / figure.limit:.1%}"
    value = "not measured" if figure.value is None else _number(figure.value)
    verdict = {None: "", True: "pass", False: "miss"}[figure.passed]
    if rehearsal and "recall" not in figure.name:
        verdict = "rehearsal, not a GPU"
    unit = f" {figure.unit}" if figure.unit and figure.value is not None else ""
    return (part, figure.name, bar, value + unit, verdict, limit, share, figure.note)


def _number(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) and value != 1 else f"{value:.4g}"
