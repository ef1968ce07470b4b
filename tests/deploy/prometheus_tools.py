"""Programs of Prometheus, and the expressions of deploy/ against the metrics of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from nearline_cli.docs_generator import MODULES, defined_metrics
from tests.deploy.tools import require_tool

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
# Of every process, by the client library, and by Prometheus itself.
_OTHERS: dict[str, frozenset[str]] = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
    "process_cpu_seconds_total": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "process_start_time_seconds": frozenset(),
}
_OF_TARGETS = frozenset({"job", "service", "process", "instance"})
_ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum"),
            "summary": ("_count", "_sum")}  # fmt: skip
_SELECTOR = re.compile(r"\b(nearline[a-z0-9_:]+|up(?=[{ ])|ALERTS|process_[a-z_]+)(?:\{([^}]*)\})?")


def promtool(*words: str) -> str:
    """Runs promtool in the folder of the rules; returns what it writes. Skips without promtool."""
    done = subprocess.run(
        [require_tool("promtool"), *words],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def known_metrics() -> dict[str, frozenset[str]]:
    """Returns the labels of each series that queries may use, without those of targets."""
    found = dict(_OTHERS)
    for modules in MODULES.values():
        for module in modules:
            for metric in defined_metrics(module):
                for family in metric.describe():
                    for ending in _ENDINGS[family.type]:
                        found[f"{family.name}{ending}"] = frozenset(metric._labelnames)
    return found


def check_names(expression: str, records: dict[str, frozenset[str]]) -> None:
    """Checks that an expression names series and labels that exist.

    Args:
        expression: The expression.
        records: The labels of recorded series, by name.
    Raises: AssertionError: it does not.
    """
    series = known_metrics() | records
    selected = _SELECTOR.findall(expression)
    assert selected, f"no series in {expression}"
    labels = _OF_TARGETS | {"le"}
    for name, matchers in selected:
        assert name in series, f"nothing exports {name}"
        given = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))
        assert given <= series[name] | _OF_TARGETS | {"le"}, f"{name} has no labels {given}"
        labels |= series[name]
    assert grouped_by(expression) <= labels


def grouped_by(expression: str) -> set[str]:
    """Returns the labels by which an expression groups or joins."""
    parts = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    return {one.strip() for part in parts for one in part.split(",") if one.strip()}
