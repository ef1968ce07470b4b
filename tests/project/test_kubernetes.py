"""Manifests in deploy/kubernetes/gpu name images, ports, settings and metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import nearline
from embedding.settings import EmbeddingSettings
from nearline.settings import ServerSettings
from retrieval.settings import ShardSettings
from retrieval.shards.topology import parse_topology
from tests.deploy.prometheus_tools import check_names
from tests.project.dockerfile import stage_text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes" / "gpu"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
GPU = "nvidia.com/gpu"
SETTINGS: dict[str, type[ServerSettings]] = {
    "embedding": EmbeddingSettings,
    "retrieval.shard_server": ShardSettings,
}
Manifest = dict[str, Any]  # As YAML has it.


def _manifests() -> list[Manifest]:
    return [
        document
        for file in sorted(FOLDER.glob("*.yaml"))
        if file.name != "kustomization.yaml"
        for document in yaml.safe_load_all(file.read_text("utf-8"))
    ]


def _of_kind(*kinds: str) -> list[Any]:
    found = [one for one in _manifests() if one["kind"] in kinds]
    return [pytest.param(one, id=f"{one['kind']}-{one['metadata']['name']}") for one in found]


WORKLOADS = _of_kind("Deployment", "StatefulSet")
SERVICES = _of_kind("Service")
SCALED = _of_kind("ScaledObject")


def _container(workload: Manifest) -> Manifest:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _stage(workload: Manifest) -> str:
    name, _, tag = _container(workload)["image"].partition(":")
    assert tag == nearline.__version__
    return stage_text(DOCKERFILE, name.removeprefix("nearline-"))


def _settings(workload: Manifest) -> ServerSettings:
    """Reads the settings as the container's process does, here of the pod with index 0."""
    container, stage = _container(workload), _stage(workload)
    (written,) = re.findall(r"^ENTRYPOINT (\[.*\])$", stage, re.M)
    command = container.get("command") or yaml.safe_load(written)
    assert command[:3] == ["python", "-P", "-m"]
    environ = dict(re.findall(r"\b(NEARLINE_\w+)=(\S+)", stage))
    environ |= {one["name"]: one.get("value", "0") for one in container["env"]}
    return SETTINGS[command[3]].load({}, environ)


def test_the_component_has_every_file_of_the_folder() -> None:
    component = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
    assert component["kind"] == "Component"
    assert sorted([*component["resources"], "kustomization.yaml"]) == sorted(
        file.name for file in FOLDER.iterdir()
    )


def test_each_manifest_has_a_kind_and_a_name_of_its_own() -> None:
    named = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in _manifests()]
    assert len(set(named)) == len(named) == 6


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_pod_has_a_gpu_to_itself_and_runs_where_gpus_are(workload: Manifest) -> None:
    pod, container = workload["spec"]["template"]["spec"], _container(workload)
    assert container["image"].partition(":")[0].endswith("-gpu")
    assert container["resources"]["limits"][GPU] == 1
    assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["nodeSelector"] == {f"{GPU}.present": "true"}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_pod_runs_with_settings_that_exist(workload: Manifest) -> None:
    settings, container = _settings(workload), _container(workload)
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"grpc": settings.port, "metrics": settings.metrics_port}
    assert settings.host == "0.0.0.0"
    annotations = workload["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.metrics_port)
    # Otherwise a Service of the namespace may set a variable that looks like a setting.
    assert workload["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_pod_is_asked_for_its_health_and_is_given_the_time_to_drain(workload: Manifest) -> None:
    settings, container = _settings(workload), _container(workload)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": settings.port}
    grace_s = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert settings.drain_s + settings.grace_s < grace_s
    # Endpoints take a second or more to forget a pod.
    assert settings.drain_s > ServerSettings.load().drain_s


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_pod_runs_unprivileged_and_writes_only_where_it_may(workload: Manifest) -> None:
    pod, container = workload["spec"]["template"]["spec"], _container(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert set(mounts) == {one["name"] for one in pod["volumes"]}
    assert {name for name, one in mounts.items() if not one.get("readOnly")} == {"tmp"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_finds_the_pods_of_its_name_at_their_port(service: Manifest) -> None:
    name = service["metadata"]["name"]
    (workload,) = [one.values[0] for one in WORKLOADS if one.values[0]["metadata"]["name"] == name]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (_settings(workload).port, "grpc")
    # A client balances its calls over the pods that it sees.
    assert service["spec"]["clusterIP"] == "None"


def test_the_topology_that_the_file_shows_is_that_of_the_shards() -> None:
    (shards,) = [one.values[0] for one in WORKLOADS if one.values[0]["kind"] == "StatefulSet"]
    (shown,) = re.findall(r'--shards "(.*)"', (FOLDER / "shards.yaml").read_text("utf-8"))
    name, port = shards["metadata"]["name"], _settings(shards).port
    assert parse_topology(shown) == {
        number: (f"{name}-{number}.{shards['spec']['serviceName']}:{port}",)
        for number in range(shards["spec"]["replicas"])
    }


def test_shards_ask_the_embedding_service_beside_them() -> None:
    settings = {type(one): one for one in (_settings(param.values[0]) for param in WORKLOADS)}
    shard = settings[ShardSettings]
    assert isinstance(shard, ShardSettings)
    assert shard.embedding == f"nearline-embedding:{settings[EmbeddingSettings].port}"


@pytest.mark.parametrize("scaled", SCALED)
def test_a_scaler_asks_for_metrics_that_exist(scaled: Manifest) -> None:
    assert scaled["spec"]["scaleTargetRef"]["name"] == scaled["metadata"]["name"]
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["type"] == "prometheus"
        check_names(trigger["metadata"]["query"], {})
        assert float(trigger["metadata"]["threshold"]) > 0


def test_the_guide_has_the_query_by_which_workers_are_scaled() -> None:
    (workers,) = [p.values[0] for p in SCALED if p.values[0]["metadata"]["name"].endswith("worker")]
    guide = (ROOT / "docs/guides/scaling.md").read_text("utf-8")
    assert workers["spec"]["triggers"][0]["metadata"]["query"] in " ".join(guide.split())
