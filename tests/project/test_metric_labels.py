"""No metric has a label whose values callers choose: it would tell who asked, and grow for ever."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from nearline_cli.docs_generator import MODULES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "nearline",
    "embedding",
    "retrieval",
    "index_builder",
    "generation",
    "gateway",
    "nearline_cli",
)
# Each label, and what bounds its values: what an operator configured, or a list in the code.
BOUNDED = {
    "arm": "current or canary",
    "backend": "models in the settings",
    "code": "gRPC's status codes",
    "collection": "collections that are served",
    "device": "GPUs in the settings",
    "direction": "read or written",
    "filter": "shapes of filters, without fields and values",
    "kind": "kinds of questions",
    "lane": "a list",
    "level": "levels of a cache",
    "limit": "names of limits",
    "method": "methods of the protocol",
    "model": "models in the settings",
    "outcome": "a list",
    "path": "paths in the table of routes",
    "reason": "a list",
    "replica": "addresses in the settings",
    "resource": "redis, disk or memory",
    "shard": "numbers of shards",
    "stage": "a list",
    "state": "a list",
    "target": "services of the protocol",
    "status": "status codes of HTTP",
    "test": "statistical tests of a rollout",
    "what": "a list",
    "why": "a list",
}


def test_each_label_of_each_metric_has_few_values() -> None:
    defining = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
        if re.search(r"^_?\w+ = (?:Counter\w*|Gauge|Histogram|Summary)\(", file.read_text(), re.M)
    ]
    assert len(defining) >= 8
    # The reference of metrics names them all.
    assert {*defining} == {module for modules in MODULES.values() for module in modules}
    for module in defining:
        importlib.import_module(module)
    found = {
        name: set(collector._labelnames)
        for collector, names in REGISTRY._collector_to_names.items()
        if isinstance(collector, MetricWrapperBase)
        for name in names
        if name.startswith("nearline_")
    }
    assert len(found) > 50
    unknown = {name: labels - BOUNDED.keys() for name, labels in found.items()}
    assert {name: labels for name, labels in unknown.items() if labels} == {}
    assert BOUNDED.keys() == set().union(*found.values())
