"""Makes PrometheusRules of rules.yaml and alerts.yaml: `python deploy/prometheus/make_rules.py`."""

from __future__ import annotations

from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
MADE = FOLDER.parent / "kubernetes" / "components" / "monitoring"


def contents() -> dict[str, str]:
    """Returns the files of the component by name."""
    return {name: _prometheus_rule(name) for name in ("rules.yaml", "alerts.yaml")}


def _prometheus_rule(name: str) -> str:
    # Both files have a group nearline-slo, and the names of an object's groups are unique: so each
    # file is an object.
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"nearline-{Path(name).stem}"},
        "spec": yaml.safe_load((FOLDER / name).read_text("utf-8")),
    }
    header = f"# Made of deploy/prometheus/{name} by deploy/prometheus/make_rules.py.\n"
    return header + yaml.safe_dump(rule, sort_keys=False, width=10_000)


if __name__ == "__main__":
    for name, text in contents().items():
        (MADE / name).write_text(text, "utf-8")
