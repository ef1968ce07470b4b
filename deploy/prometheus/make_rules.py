"""Makes PrometheusRules of rules.yaml and alerts.yaml: `python deploy/prometheus/make_rules.py`."""

from __future__ import annotations

import textwrap
from pathlib import Path

FOLDER = Path(__file__).parent
MADE = FOLDER.parent / "kubernetes" / "components" / "monitoring"


def contents() -> dict[str, str]:
    """Returns the files of the component by name."""
    return {name: _prometheus_rule(name) for name in ("rules.yaml", "alerts.yaml")}


def _prometheus_rule(name: str) -> str:
    # The spec of a PrometheusRule is what Prometheus reads from a file. A group has its name once
    # in an object, and both files have a group nearline-slo, so each is an object.
    groups = (FOLDER / name).read_text("utf-8")
    return (
        f"# Made of deploy/prometheus/{name} by deploy/prometheus/make_rules.py.\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        f"metadata:\n  name: nearline-{Path(name).stem}\n"
        f"spec:\n{textwrap.indent(groups[groups.index('groups:') :], '  ')}"
    )


if __name__ == "__main__":
    for name, text in contents().items():
        (MADE / name).write_text(text, "utf-8")
