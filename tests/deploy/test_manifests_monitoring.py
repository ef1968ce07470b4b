"""Every pod is scraped, and the operator and Grafana get the alerts and dashboards of deploy/."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import FOLDER, OVERLAYS, Pod, of_kind, servers
from tests.deploy.network_rules import selects
from tests.deploy.prometheus_tools import PROMETHEUS, ROOT, known_metrics

SERVICES = {
    *("router", "shard", "embedding", "generation"),
    *("gateway", "ingest", "worker", "upkeep"),
}
# What the operator sets on each target of a PodMonitor, and Prometheus itself.
_OF_OPERATOR = {"namespace", "pod", "container", "endpoint", "instance"}
_MATCHER = re.compile(r'\b(job|service|process)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
overlays = pytest.mark.parametrize("overlay", OVERLAYS)
MONITORED = [one for one in OVERLAYS if one not in ("base", "dev")]
monitored = pytest.mark.parametrize("overlay", MONITORED)


@overlays
def test_an_overlay_is_monitored_or_has_nothing_of_it(overlay: str) -> None:
    found = of_kind(overlay, "PodMonitor", "PrometheusRule") + _dashboards(overlay)
    assert bool(found) == (overlay in MONITORED)


@monitored
def test_every_pod_is_scraped_at_the_port_of_its_metrics(overlay: str) -> None:
    (monitor,) = of_kind(overlay, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for pod in servers(overlay):
        assert selects(monitor["spec"]["selector"], pod.labels)
        assert endpoint["port"] in [one["name"] for one in pod.container["ports"]]
        labels = _target_labels(overlay, pod)
        # As of `nearline up`: alerts and dashboards select by them.
        assert labels["job"] == "nearline" and labels["service"] in SERVICES


def _target_labels(overlay: str, pod: Pod) -> dict[str, str]:
    """Returns the labels that the rules of the PodMonitor set on the target of a pod."""
    (monitor,) = of_kind(overlay, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    found = _relabeled(endpoint["relabelings"], pod.labels)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def _relabeled(rules: Sequence[Mapping[str, Any]], pod_labels: Mapping[str, str]) -> dict[str, str]:
    """Returns the labels of a target, as Prometheus sets them by rules that replace."""
    meta = "__meta_kubernetes_pod_label_"
    labels = {meta + re.sub(r"\W", "_", name): value for name, value in pod_labels.items()}
    for rule in rules:
        value = ";".join(labels.get(name, "") for name in rule.get("sourceLabels", ()))
        found = re.fullmatch(rule.get("regex", "(.*)"), value)
        if found:
            labels[rule["targetLabel"]] = rule.get("replacement", value)
    return labels


@monitored
def test_the_operator_gets_the_rules_and_alerts_of_prometheus(overlay: str) -> None:
    found = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "PrometheusRule")}
    assert found == {
        f"nearline-{name}": yaml.safe_load((PROMETHEUS / f"{name}.yaml").read_text("utf-8"))
        for name in ("rules", "alerts")
    }
    for spec in found.values():
        # The operator refuses two groups of one name in an object.
        names = [one["name"] for one in spec["groups"]]
        assert len(set(names)) == len(names)


def test_the_rules_in_the_component_are_what_their_generator_makes_now() -> None:
    folder = FOLDER / "components" / "monitoring"
    wanted = runpy.run_path(str(PROMETHEUS / "make_rules.py"))["contents"]()
    kept = {name: (folder / name).read_text("utf-8") for name in wanted}
    assert kept == wanted, "run python deploy/prometheus/make_rules.py"


def _dashboards(overlay: str) -> list[dict[str, Any]]:
    """Returns the ConfigMaps that the sidecar of Grafana reads."""
    return [
        one
        for one in of_kind(overlay, "ConfigMap")
        if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]


@monitored
def test_grafana_gets_every_dashboard(overlay: str) -> None:
    files = (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")
    maps = _dashboards(overlay)
    found = {name: text for one in maps for name, text in one["data"].items()}
    assert found == {one.name: one.read_text("utf-8") for one in files}
    assert len(maps) == len(found)
    for one in maps:
        # `kubectl apply` keeps the object in an annotation, which may have 256 KiB.
        assert len(json.dumps(one)) < 128 * 1024


@pytest.mark.parametrize("overlay", ["production", "tracing"])
def test_alerts_and_dashboards_select_by_labels_that_targets_have(overlay: str) -> None:
    targets = [_target_labels(overlay, pod) for pod in servers(overlay)]
    asked = [
        rule["expr"]
        for one in of_kind(overlay, "PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    ]
    for one in _dashboards(overlay):
        (text,) = one["data"].values()
        asked += [
            target["expr"]
            for panel in json.loads(text)["panels"]
            for target in panel.get("targets", ())
        ]
    found = [match for expression in asked for match in _MATCHER.findall(expression)]
    assert {name for name, _ in found} == {"job", "service"}
    for name, value in found:
        for choice in value.split("|"):
            assert choice in {one.get(name) for one in targets}, f'{name}="{value}"'


def test_no_metric_has_a_label_that_the_operator_sets() -> None:
    # Prometheus would rename it to exported_…, and queries would read that of the target.
    for name, labels in known_metrics().items():
        assert not labels & (_OF_OPERATOR | {"job", "service"}), name
