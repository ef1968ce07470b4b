"""Checks queries of Prometheus against the metrics that this process has defined."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

_SELECTOR = re.compile(r"(nearline_[a-z0-9_]+)(?:\{([^}]*)\})?")
_ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum"),
            "summary": ("_count", "_sum")}  # fmt: skip


def check_query(expression: str) -> None:
    """Checks that a query names metrics and labels that exist.

    Raises: AssertionError: it does not. Import what defines the metrics first.
    """
    metrics = _labels_of_metrics()
    selected = _SELECTOR.findall(expression)
    assert selected
    known: frozenset[str] = frozenset()
    for name, matchers in selected:
        assert name in metrics, f"no service has a metric {name}"
        given = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))
        assert given <= metrics[name]
        known |= metrics[name]
    assert grouped_by(expression) <= known | {"le"}
    assert expression.count("(") == expression.count(")")


def grouped_by(expression: str) -> set[str]:
    """Returns the labels by which a query groups."""
    parts = re.findall(r"by \(([^)]*)\)", expression)
    return {one.strip() for part in parts for one in part.split(",")}


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
