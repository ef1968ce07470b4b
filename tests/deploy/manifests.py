"""Manifests as kustomize renders them, and the processes that they start."""

from __future__ import annotations

import base64
import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from benchmarks.fleet.dockerfile import read_stage
from nearline.settings import ListenerSettings, Settings, parse_arguments
from nearline_cli.local.service_settings import settings_of
from tests.deploy.network_rules import selects
from tests.deploy.tools import ROOT, require_tool

FOLDER = ROOT / "deploy" / "kubernetes"
# The base is what a service mesh protects; it lacks a Redis.
OVERLAYS = ("base", "dev", "production", "gpu", "milvus", "ray", "region", "tracing")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
# What the Secrets hold that an operator makes, by name and key.
SECRETS = {
    ("redis", "url"): "rediss://redis.example:6379/0",
    ("token", "token"): "nl_test",
    ("milvus", "token"): "user:password",
}
Manifest = dict[str, Any]  # As YAML has it.


def load_all(text: str) -> tuple[Manifest, ...]:
    """Returns the objects of a text of YAML, those of empty templates left out."""
    # A tenth of the time of the loader in Python.
    return tuple(filter(None, yaml.load_all(text, yaml.CSafeLoader)))


@functools.cache
def render(overlay: str) -> tuple[Manifest, ...]:
    """Returns the objects of an overlay, or skips the test if there is no kustomize."""
    folder = FOLDER / overlay if overlay == "base" else FOLDER / "overlays" / overlay
    built = subprocess.run(
        [require_tool("kustomize"), "build", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stderr
    return load_all(built.stdout)


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    """Returns the objects of some kinds."""
    return [one for one in render(overlay) if one["kind"] in kinds]


def settings_kind(module: str) -> type[Settings]:
    """Returns the settings class of the module that a container runs."""
    found = settings_of(module)
    assert found is not None, f"{module} is no service"
    return found


class Pod(NamedTuple):
    """A pod of a workload, which has one container.

    kind, name: Those of the workload. labels: Those of the pod. replicas: None if scaled.
    """

    overlay: str
    kind: str
    name: str
    labels: Mapping[str, str]
    replicas: int | None
    spec: Manifest

    @property
    def container(self) -> Manifest:
        """The container."""
        (container,) = self.spec["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def target(self) -> str:
        """The target of the Dockerfile that makes the image."""
        name = self.container["image"].partition(":")[0].removeprefix("nearline-")
        return str(name).replace("index-builder", "index_builder")

    @property
    def module(self) -> str:
        """The module that it runs."""
        command = self.container["command"]
        assert command[:3] == ["python", "-P", "-m"] and len(command) == 4
        return str(command[3])

    @property
    def environ(self) -> dict[str, str]:
        """The variables of the process in the pod with index 0."""
        return read_stage(DOCKERFILE, self.target).environ | self.own_environ

    @property
    def own_environ(self) -> dict[str, str]:
        """Those that the manifest sets."""
        return {
            one["name"]: one["value"] if "value" in one else self._resolve(one["valueFrom"])
            for one in self.container["env"]
        }

    def _resolve(self, source: Manifest) -> str:
        ((kind, reference),) = source.items()
        if kind == "fieldRef":
            assert reference["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
            return "0"
        name, key = reference["name"], reference["key"]
        if kind == "configMapKeyRef":
            maps = {one["metadata"]["name"]: one for one in of_kind(self.overlay, "ConfigMap")}
            return str(maps[name]["data"][key])
        assert kind == "secretKeyRef"
        made = {one["metadata"]["name"]: one for one in of_kind(self.overlay, "Secret")}
        if name in made:
            return base64.b64decode(made[name]["data"][key]).decode()
        return SECRETS[name, key]

    @property
    def settings(self) -> Any:
        """The settings, as the process reads them."""
        kind = settings_kind(self.module)
        arguments = parse_arguments(self.container.get("args", []), kind)
        return kind.load(arguments, self.environ)


@functools.cache
def pods(overlay: str) -> tuple[Pod, ...]:
    """Returns a pod of each of Nearline's own workloads."""
    found = []
    for one in of_kind(overlay, "Deployment", "StatefulSet", "CronJob"):
        spec = one["spec"]
        if one["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        template = spec["template"]
        name = one["metadata"]["name"]
        if name != "redis":
            labels, replicas = template["metadata"]["labels"], spec.get("replicas")
            found.append(Pod(overlay, one["kind"], name, labels, replicas, template["spec"]))
    return tuple(found)


def servers(overlay: str) -> list[Pod]:
    """Returns those that listen on a port."""
    return [one for one in pods(overlay) if issubclass(settings_kind(one.module), ListenerSettings)]


def pod_named(overlay: str, name: str) -> Pod:
    """Returns the pod of the workload of this name."""
    (found,) = [one for one in pods(overlay) if one.name == name]
    return found


def addresses(settings: Any) -> Iterator[str]:
    """Yields every host:port of other services that settings name."""
    for field in ("retrieval", "embedding", "generation", "ingest", "shards"):
        for part in re.split(r"[,;]", str(getattr(settings, field, "") or "")):
            address = part.rpartition("=")[2].strip()
            if ":" in address:
                yield address


def target_of(overlay: str, address: str) -> Pod:
    """Returns the pod that answers at an address, as the DNS of the cluster has it."""
    host, _, port = address.rpartition(":")
    name, _, service_name = host.rpartition(".")
    (service,) = [
        one for one in of_kind(overlay, "Service") if one["metadata"]["name"] == service_name
    ]
    (found,) = [
        one
        for one in pods(overlay)
        if selects({"matchLabels": service["spec"]["selector"]}, one.labels)
    ]
    (offered,) = service["spec"]["ports"]
    assert offered["port"] == int(port)
    if name:
        # Pods of a StatefulSet have names of their own.
        assert found.kind == "StatefulSet" and found.replicas is not None
        assert name in [f"{found.name}-{number}" for number in range(found.replicas)]
    return found
