"""Prints measured rows, the cost model and the plan."""

from __future__ import annotations

from benchmarks.scaling_parts.capacity import CapacityRow, Scenario, plan_capacity
from benchmarks.scaling_parts.cost_model import FittedFormula, fit_formulas
from benchmarks.scaling_parts.measured_rows import LISTS, REDIS, SEARCHES, MeasuredRows
from nearline_cli.terminal.output import print_json, print_table


def print_results(measured: MeasuredRows, scenario: Scenario, *, as_json: bool) -> None:
    """Prints tables, or JSON lines."""
    fitted = fit_formulas(measured.rows)
    plan = list(plan_capacity(fitted, scenario))
    if as_json:
        for row in measured.rows:
            print_json(row)
        for name, one in fitted.items():
            dropped = [term.text for term in one.dropped]
            print_json(
                {"kind": "fit", "figure": name, "formula": one.text(), "dropped": dropped}
                | one.fit._asdict()
            )
        for line in plan:
            print_json({"kind": "plan", **line._asdict()})
        return
    for kind in (SEARCHES, LISTS, REDIS):
        if rows := measured.of_kind(kind):
            names = [name for name in rows[0] if name != "kind"]
            print_table(names, [[row[name] for name in names] for row in rows], title=kind)
    print_table(
        ("figure", "fitted formula", "rows", "error", "error of rows left out", "did not vary"),
        [_fit_cells(name, one) for name, one in fitted.items()],
        title="cost model",
    )
    print_table(
        ("figure", "average", "at the peak", "unit", "error", "beyond measured", "from"),
        [_plan_cells(line) for line in plan],
        title=", ".join(f"{value:,g} {name}" for name, value in scenario._asdict().items()),
    )


def _fit_cells(name: str, one: FittedFormula) -> tuple[object, ...]:
    dropped = ", ".join(term.text for term in one.dropped) or "-"
    errors = f"{one.fit.residual:.1%}", _percent(one.fit.left_out)
    return (name, one.text(), one.fit.rows, *errors, dropped)


def _plan_cells(line: CapacityRow) -> tuple[str, ...]:
    beyond = "-" if line.beyond is None else f"{line.beyond:,.0f} times"
    values = _number(line.value), _number(line.peak)
    return (line.figure, *values, line.unit, _percent(line.error), beyond, line.source)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
