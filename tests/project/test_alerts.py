"""Alerts and the dashboard in deploy/ name metrics and labels that exist; alerts say what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import nearline.call_guard
import retrieval.monitoring.metrics
import retrieval.protocols.metrics
import retrieval.writes.feed_block

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/nearline.json"
RULES = [
    rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]
]
# Whoever defines metrics is imported, so that they are known.
DEFINED_IN = (
    nearline.call_guard,
    retrieval.protocols.metrics,
    retrieval.monitoring.metrics,
    retrieval.writes.feed_block,
)
_SELECTOR = re.compile(r"(nearline_[a-z0-9_]+)(?:\{([^}]*)\})?")
_ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum"),
            "summary": ("_count", "_sum")}  # fmt: skip


def _labels_of_metrics() -> dict[str, frozenset[str]]:
    """Returns the labels of every metric of this process, by the names that a query may use."""
    found = {}
    for collector in REGISTRY._collector_to_names:
        if not isinstance(collector, MetricWrapperBase):
            continue
        for family in collector.describe():
            for ending in _ENDINGS.get(family.type, ()):
                found[f"{family.name}{ending}"] = frozenset(collector._labelnames)
    return found


METRICS = _labels_of_metrics()


def test_each_alert_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) >= 8
    assert all(re.fullmatch(r"Nearline[A-Za-z]+", name) for name in names)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_names_metrics_and_labels_that_exist(rule: dict[str, object]) -> None:
    _check_names(str(rule["expr"]))


def test_the_dashboard_names_metrics_and_labels_that_exist() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    targets = [target for panel in panels for target in panel.get("targets", ())]
    assert len(targets) > 10
    for target in targets:
        _check_names(target["expr"])
        shown = set(re.findall(r"\{\{([a-z_]+)\}\}", target["legendFormat"]))
        assert shown <= _grouped_by(target["expr"])
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule: dict[str, object]) -> None:
    labels, annotations = rule["labels"], rule["annotations"]
    assert isinstance(labels, dict) and isinstance(annotations, dict)
    assert labels["severity"] in ("info", "warning", "critical")
    assert annotations["summary"] and annotations["remedy"]
    shown = set(re.findall(r"\$labels\.([a-z_]+)", annotations["summary"]))
    assert shown <= _grouped_by(str(rule["expr"]))
    assert re.fullmatch(r"\d+[mh]", str(rule.get("for", "0m")))


def _check_names(expression: str) -> None:
    selected = _SELECTOR.findall(expression)
    assert selected
    known: frozenset[str] = frozenset()
    for name, matchers in selected:
        assert name in METRICS, f"no service has a metric {name}"
        given = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))
        assert given <= METRICS[name]
        known |= METRICS[name]
    assert _grouped_by(expression) <= known | {"le"}
    assert expression.count("(") == expression.count(")")


def _grouped_by(expression: str) -> set[str]:
    parts = re.findall(r"by \(([^)]*)\)", expression)
    return {one.strip() for part in parts for one in part.split(",")}
