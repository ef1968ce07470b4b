"""Alerts and the dashboard in deploy/ name metrics and labels that exist; alerts say what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import embedding.metrics
import nearline.call_guard
import retrieval.monitoring.metrics
import retrieval.protocols.metrics
import retrieval.writes.feed_block
from tests.project.metric_queries import check_query, grouped_by

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/nearline.json"
RULES = [
    rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]
]
# Whoever defines metrics is imported, so that they are known.
DEFINED_IN = (
    embedding.metrics,
    nearline.call_guard,
    retrieval.protocols.metrics,
    retrieval.monitoring.metrics,
    retrieval.writes.feed_block,
)


def test_each_alert_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) >= 8
    assert all(re.fullmatch(r"Nearline[A-Za-z]+", name) for name in names)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_names_metrics_and_labels_that_exist(rule: dict[str, object]) -> None:
    check_query(str(rule["expr"]))


def test_the_dashboard_names_metrics_and_labels_that_exist() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    targets = [target for panel in panels for target in panel.get("targets", ())]
    assert len(targets) > 10
    for target in targets:
        check_query(target["expr"])
        shown = set(re.findall(r"\{\{([a-z_]+)\}\}", target["legendFormat"]))
        assert shown <= grouped_by(target["expr"])
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule: dict[str, object]) -> None:
    labels, annotations = rule["labels"], rule["annotations"]
    assert isinstance(labels, dict) and isinstance(annotations, dict)
    assert labels["severity"] in ("info", "warning", "critical")
    assert annotations["summary"] and annotations["remedy"]
    shown = set(re.findall(r"\$labels\.([a-z_]+)", annotations["summary"]))
    assert shown <= grouped_by(str(rule["expr"]))
    assert re.fullmatch(r"\d+[mh]", str(rule.get("for", "0m")))
