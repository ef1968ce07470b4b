"""Releases, disruptions and scaling of every overlay."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.deploy.manifests import FOLDER, OVERLAYS, of_kind, pod_named, pods, servers
from tests.deploy.network_rules import selects
from tests.deploy.prometheus_tools import check_names

overlays = pytest.mark.parametrize("overlay", OVERLAYS)


@overlays
def test_a_replica_of_each_shard_serves_while_a_release_rolls(overlay: str) -> None:
    groups = {one["metadata"]["name"]: one for one in of_kind(overlay, "StatefulSet")}
    if "shards-b" not in groups:
        return
    partitions = {}
    for name in ("shards-a", "shards-b"):
        spec = groups[name]["spec"]
        assert spec["updateStrategy"]["type"] == "RollingUpdate"
        partitions[name] = spec["updateStrategy"]["rollingUpdate"]["partition"]
        # No node has both replicas.
        (rule,) = spec["template"]["spec"]["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        (other,) = {"shards-a", "shards-b"} - {name}
        labels = groups[other]["spec"]["template"]["metadata"]["labels"]
        assert selects(rule["labelSelector"], labels)
        assert not selects(rule["labelSelector"], spec["template"]["metadata"]["labels"])
    # All of group a, and none of group b until somebody lets it.
    assert partitions["shards-a"] == 0
    assert partitions["shards-b"] >= groups["shards-b"]["spec"]["replicas"]


@overlays
def test_a_budget_limits_disruptions_of_everything_that_is_called(overlay: str) -> None:
    guarded = set()
    for budget in of_kind(overlay, "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        found = {
            one.name for one in pods(overlay) if selects(budget["spec"]["selector"], one.labels)
        }
        assert found
        guarded |= found
    assert guarded == {one["metadata"]["name"] for one in of_kind(overlay, "Service")} - {"redis"}


@overlays
def test_a_scaler_has_a_target_whose_number_no_release_sets(overlay: str) -> None:
    scalers = of_kind(overlay, "HorizontalPodAutoscaler", "ScaledObject")
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
    assert len(targets) == len(set(targets))
    for name in targets:
        assert pod_named(overlay, name).replicas is None
    unscaled = [
        one for one in pods(overlay) if one.kind == "Deployment" and one.name not in targets
    ]
    assert all(one.replicas for one in unscaled)


@overlays
def test_scalers_ask_for_metrics_that_exist(overlay: str) -> None:
    rules = yaml.safe_load(
        (FOLDER / "components/autoscaling/adapter-rules.yaml").read_text("utf-8")
    )
    known = {}
    for rule in rules["rules"]["custom"]:
        series, _, _ = rule["seriesQuery"].partition("{")
        check_names(series, {})
        known[rule["name"]["as"]] = series
    for one in of_kind(overlay, "HorizontalPodAutoscaler"):
        cpu, calls = one["spec"]["metrics"]
        assert cpu["resource"]["name"] == "cpu"
        name = calls["pods"]["metric"]["name"]
        gateway = one["metadata"]["name"] == "gateway"
        assert known[name].startswith("nearline_gateway" if gateway else "nearline_server")
    for one in of_kind(overlay, "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            check_names(trigger["metadata"]["query"], {})
            assert float(trigger["metadata"]["threshold"]) > 0


@overlays
def test_only_what_may_be_killed_runs_on_spot_machines(overlay: str) -> None:
    spot = {
        one.name
        for one in pods(overlay)
        if any(each["key"] == "spot" for each in one.spec.get("tolerations", []))
    }
    assert spot == {one.name for one in pods(overlay)} & (
        set() if overlay in ("base", "dev") else {"worker", "build"}
    )


def test_the_guide_has_the_queries_by_which_workers_are_scaled() -> None:
    guide = (FOLDER.parents[1] / "docs/guides/scaling.md").read_text("utf-8")
    (workers,) = [
        one for one in of_kind("production", "ScaledObject") if one["metadata"]["name"] == "worker"
    ]
    for trigger in workers["spec"]["triggers"]:
        assert trigger["metadata"]["query"] in " ".join(guide.split())


def _gib(memory: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", memory).groups()  # type: ignore[union-attr]
    return int(number) / (1024 if unit == "Mi" else 1)


def _cores(cpu: str) -> float:
    return int(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


def test_the_guide_has_the_sum_of_what_pods_ask_for() -> None:
    guide = (FOLDER.parents[1] / "docs/guides/deployment.md").read_text("utf-8")
    row = r"\| \*\*all.*\| \*\*([\d.]+)\*\* \| \*\*([\d.]+) GiB\*\* \|"
    ((cores, memory),) = re.findall(row, guide)
    smallest: dict[str, int] = {}
    for one in of_kind("production", "HorizontalPodAutoscaler", "ScaledObject"):
        spec = one["spec"]
        least = spec.get("minReplicas", spec.get("minReplicaCount"))
        smallest[spec["scaleTargetRef"]["name"]] = least
    asked = [
        (smallest.get(pod.name, pod.replicas or 0), pod.container["resources"]["requests"])
        for pod in servers("production")
    ]
    assert sum(count * _cores(each["cpu"]) for count, each in asked) == float(cores)
    assert sum(count * _gib(each["memory"]) for count, each in asked) == float(memory)
