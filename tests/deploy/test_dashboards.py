"""Dashboards are those that their queries make, and name what exists."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus_tools import PROMETHEUS, ROOT, check_names, grouped_by, promtool
from tests.deploy.test_alerts import RECORDS

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
TARGETS = [
    (name, panel["title"], target)
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", ())
]


def test_files_are_those_that_the_queries_make() -> None:
    kept = {path.name: path.read_text("utf-8") for path in (GRAFANA / "dashboards").iterdir()}
    made = runpy.run_path(str(GRAFANA / "make_dashboards.py"))["contents"]()
    assert kept == made, "run python deploy/grafana/make_dashboards.py"


def test_each_service_has_a_dashboard() -> None:
    asked = " ".join(target["expr"] for _, _, target in TARGETS)
    for service in ("router", "shard", "embedding", "generation", "ingest", "gateway", "worker"):
        assert f'service="{service}"' in asked
    assert {"overview", "upkeep", "changes", "cost"} <= DASHBOARDS.keys()


@pytest.mark.parametrize(
    ("name", "title", "target"), TARGETS, ids=[f"{name}-{title}" for name, title, _ in TARGETS]
)
def test_a_panel_names_series_and_labels_that_exist(
    name: str, title: str, target: dict[str, Any]
) -> None:
    check_names(target["expr"], RECORDS)
    shown = set(re.findall(r"\{\{([a-z_]+)\}\}", target["legendFormat"]))
    grouped = grouped_by(target["expr"])
    if not grouped:
        grouped = set().union(*(RECORDS[one] for one in RECORDS if one in target["expr"]))
    assert shown <= grouped


def test_prometheus_can_parse_every_query(tmp_path: object) -> None:
    rules = [{"record": f"panel:{at}", "expr": one["expr"]} for at, (*_, one) in enumerate(TARGETS)]
    file = PROMETHEUS.joinpath(str(tmp_path), "panels.yaml")
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    cells = [
        (x, y)
        for one in places
        for x in range(one["x"], one["x"] + one["w"])
        for y in range(one["y"], one["y"] + one["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    numbers = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_grafana_is_told_where_dashboards_and_prometheus_are() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards/nearline.yaml").read_text("utf-8"))[
        "providers"
    ]
    assert provider["options"]["path"]
