"""Sight asks every expression of alerts, rules and panels, without the thresholds of alerts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.sight_parts.expressions import DASHBOARDS, expressions, without_thresholds
from tests.deploy.prometheus_tools import promtool


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("up == 0", "up == bool 0"),
        ('rate(a{b!="c",d=~"e>f"}[5m]) >= 2 * b', 'rate(a{b!="c",d=~"e>f"}[5m]) >= bool 2 * b'),
        ("(a > 1 and b < 2) or c != d", "(a > bool 1 and b < bool 2) or c != bool d"),
        ("a > bool 1", "a > bool 1"),
    ],
)
def test_comparisons_return_0_or_1_and_matchers_stay(query: str, wanted: str) -> None:
    assert without_thresholds(query) == [wanted]


def test_each_side_of_unless_is_asked_and_long_steps_are_short() -> None:
    query = "(sum_over_time((a > b)[56h:15m]) >= 2)\nunless (c > 0)"
    wanted = ["(sum_over_time((a > bool b)[10m:15s]) >= bool 2)", "(c > bool 0)"]
    assert without_thresholds(query) == wanted


def test_all_expressions_are_asked_and_valid(tmp_path: Path) -> None:
    asked = list(expressions())
    assert {path.stem for path in DASHBOARDS.glob("*.json")} <= {
        one.place.partition(":")[0] for one in asked
    }
    assert sum(one.place.startswith("Nearline") for one in asked) >= 38
    rules = [{"record": f"asked:{at}", "expr": one.query} for at, one in enumerate(asked)]
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}), "utf-8")
    promtool("check", "rules", str(file))


def test_what_cannot_be_seen_here_is_only_about_gpus() -> None:
    excused = [one for one in expressions() if one.not_here]
    assert len(excused) == 3
    assert all("gpu" in one.query for one in excused)
