"""Makes the dashboards of dashboards.yaml: `python deploy/grafana/make_dashboards.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Panel: TypeAlias = Mapping[str, Any]

FOLDER = Path(__file__).parent
WIDTH, HEIGHT, PER_ROW = 8, 8, 3


def contents() -> dict[str, str]:
    """Returns the files of Grafana by name."""
    spec = yaml.safe_load((FOLDER / "dashboards.yaml").read_text("utf-8"))
    return {
        f"{name}.json": json.dumps(dashboard(name, rows, spec), indent=1) + "\n"
        for name, rows in spec["dashboards"].items()
    }


def panels_of(entries: Sequence[Panel], spec: Mapping[str, Any]) -> Iterator[Panel]:
    """Yields panels, with those that a template stands for: `signals` or `calls_made`."""
    for entry in entries:
        if "title" in entry:
            yield entry
            continue
        for template, service in entry.items():
            for panel in spec[template]:
                queries = {
                    legend: query.replace("SERVICE", service)
                    for legend, query in panel["queries"].items()
                }
                yield {**panel, "queries": queries}


def dashboard(
    name: str, rows: Mapping[str, Sequence[Panel]], spec: Mapping[str, Any]
) -> dict[str, object]:
    """Returns a dashboard in Grafana's format."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels: list[dict[str, object]] = []
    y = 0
    for title, entries in rows.items():
        shown = list(panels_of(entries, spec))
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        number = len(panels) + 1
        panels.append({"id": number, "type": "row", "title": title, "gridPos": place})
        y += 1
        for at, panel in enumerate(shown):
            x, below = at % PER_ROW * WIDTH, at // PER_ROW * HEIGHT
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": "timeseries",
                    "title": panel["title"],
                    "datasource": source,
                    "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y + below},
                    "fieldConfig": {"defaults": {"unit": panel["unit"]}, "overrides": []},
                    "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
                    "targets": [
                        {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend}
                        for number, (legend, query) in enumerate(panel["queries"].items())
                    ],
                }
            )
        y += -(-len(shown) // PER_ROW) * HEIGHT
    variable = {
        "name": "source",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    return {
        "title": f"Nearline: {name}",
        "uid": f"nearline-{name}",
        "tags": ["nearline"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [variable]},
        "links": [
            {
                "type": "dashboards",
                "title": "Nearline",
                "tags": ["nearline"],
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


if __name__ == "__main__":
    for name, text in contents().items():
        (FOLDER / "dashboards" / name).write_text(text, "utf-8")
