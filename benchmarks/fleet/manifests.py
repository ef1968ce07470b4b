"""Reads Kubernetes manifests, as `kustomize build` prints: workloads, services, configuration."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.fleet.containers import (
    Check,
    Container,
    ExecCheck,
    GrpcCheck,
    HttpCheck,
    Mount,
    Probe,
    TcpCheck,
)
from benchmarks.fleet.dockerfile import Image, read_stage

_REFERENCE = re.compile(r"\$\(([A-Za-z_]\w*)\)")
_LABEL = re.compile(r"metadata\.labels\['(.+)'\]")
_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_IMAGES = "nearline-"


class Service(NamedTuple):
    """A Service. headless: Its name stands for its pods, not for a balancer.

    ports: Port or name of a port of the pods, by port of the Service.
    """

    name: str
    headless: bool
    unready_too: bool
    selector: Mapping[str, str]
    ports: Mapping[int, int | str]


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, a StatefulSet, or the pods of a CronJob; template: Of its pods.

    claims: Names of the volumes that each pod of a StatefulSet has for itself.
    """

    kind: str
    name: str
    replicas: int
    template: Mapping[str, Any]
    claims: tuple[str, ...] = ()
    service: str = ""

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of its pods."""
        labels: Mapping[str, str] = self.template.get("metadata", {}).get("labels", {})
        return labels

    @property
    def spec(self) -> Mapping[str, Any]:
        """Specification of its pods."""
        spec: Mapping[str, Any] = self.template["spec"]
        return spec


@dataclass(slots=True)
class Manifests:
    """The objects of rendered manifests; data: Of ConfigMaps and Secrets, by kind and name."""

    workloads: dict[str, Workload] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    data: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)


class PodPlace(NamedTuple):
    """Where a pod runs: its name, address, labels, and the folders of its volumes by name."""

    name: str
    address: str
    labels: Mapping[str, str]
    volumes: Mapping[str, Path]


def read_manifests(text: str) -> Manifests:
    """Returns what a stream of YAML documents says; kinds that do not run are left out."""
    found = Manifests()
    for document in yaml.safe_load_all(text):
        if not document:
            continue
        kind, name = document["kind"], document["metadata"]["name"]
        spec = document.get("spec", {})
        match kind:
            case "Deployment" | "StatefulSet":
                claims = spec.get("volumeClaimTemplates", ())
                found.workloads[name] = Workload(
                    kind,
                    name,
                    int(spec.get("replicas", 1)),
                    spec["template"],
                    tuple(claim["metadata"]["name"] for claim in claims),
                    spec.get("serviceName", ""),
                )
            case "CronJob":
                template = spec["jobTemplate"]["spec"]["template"]
                found.workloads[name] = Workload(kind, name, 0, template)
            case "Service":
                found.services[name] = Service(
                    name,
                    spec.get("clusterIP") == "None",
                    bool(spec.get("publishNotReadyAddresses")),
                    spec["selector"],
                    {port["port"]: port.get("targetPort", port["port"]) for port in spec["ports"]},
                )
            case "ConfigMap":
                found.data[kind, name] = dict(document.get("data", {}))
            case "Secret":
                decoded = {
                    key: base64.b64decode(value).decode()
                    for key, value in document.get("data", {}).items()
                }
                found.data[kind, name] = decoded | dict(document.get("stringData", {}))
    return found


def pod_containers(
    manifests: Manifests, workload: Workload, place: PodPlace, dockerfile: str
) -> tuple[list[Container], list[Container]]:
    """Returns the initial containers of a pod, which run one after the other, and the others."""
    spec = workload.spec
    restarts = spec.get("restartPolicy", "Always") == "Always"

    def made(container: Mapping[str, Any], restarts: bool) -> Container:
        return _container(manifests, spec, container, place, dockerfile, restarts)

    return (
        [made(one, False) for one in spec.get("initContainers", ())],
        [made(one, restarts) for one in spec["containers"]],
    )


def port_number(containers: Sequence[Mapping[str, Any]], port: int | str) -> int:
    """Returns the number of a port, which may be a name of the containers' ports."""
    if isinstance(port, int):
        return port
    return next(
        int(one["containerPort"])
        for container in containers
        for one in container.get("ports", ())
        if one.get("name") == port
    )


def _container(
    manifests: Manifests,
    spec: Mapping[str, Any],
    container: Mapping[str, Any],
    place: PodPlace,
    dockerfile: str,
    restarts: bool,
) -> Container:
    image = _image(container["image"], dockerfile)
    environ = image.environ | _environment(manifests, container, place)
    command = container.get("command")
    words = [
        *(command or image.entrypoint),
        *(container.get("args") or (() if command else image.command)),
    ]
    security = spec.get("securityContext", {}) | container.get("securityContext", {})
    user = f"{security['runAsUser']}:{security['runAsGroup']}" if "runAsUser" in security else ""
    mounts = {
        one["mountPath"]: Mount(place.volumes[one["name"]], bool(one.get("readOnly")))
        for one in container.get("volumeMounts", ())
    }

    def probe(name: str) -> Probe | None:
        given = container.get(name)
        return None if given is None else _probe(given, container)

    return Container(
        name=f"{place.name}.{container['name']}",
        words=tuple(_expanded(str(word), environ) for word in words),
        environ=environ,
        mounts=mounts,
        user=user or image.user,
        ready=probe("readinessProbe"),
        alive=probe("livenessProbe"),
        started=probe("startupProbe"),
        pre_stop=_hook(container.get("lifecycle", {}).get("preStop", {})),
        grace_s=float(spec.get("terminationGracePeriodSeconds", 30)),
        restarts=restarts,
    )


def _image(name: str, dockerfile: str) -> Image:
    name = name.rpartition("/")[2].partition(":")[0].partition("@")[0]
    if not name.startswith(_IMAGES):
        return Image()
    stage = name.removeprefix(_IMAGES).replace("index-builder", "index_builder")
    return read_stage(dockerfile, stage)


def _environment(
    manifests: Manifests, container: Mapping[str, Any], place: PodPlace
) -> dict[str, str]:
    environ: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                found = manifests.data.get((kind, source[key]["name"]))
                if found is None and not source[key].get("optional"):
                    raise KeyError(f"{kind} {source[key]['name']}")
                environ |= found or {}
    for one in container.get("env", ()):
        if "valueFrom" not in one:
            environ[one["name"]] = _expanded(str(one.get("value", "")), environ)
            continue
        value = _value(manifests, one["valueFrom"], place)
        if value is not None:
            environ[one["name"]] = value
    return environ


def _value(manifests: Manifests, source: Mapping[str, Any], place: PodPlace) -> str | None:
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if key in source:
            found = manifests.data.get((kind, source[key]["name"]), {}).get(source[key]["key"])
            if found is None and not source[key].get("optional"):
                raise KeyError(f"{kind} {source[key]}")
            return found
    path = source["fieldRef"]["fieldPath"]
    if label := _LABEL.fullmatch(path):
        return place.labels[label[1]]
    return {"metadata.name": place.name, "status.podIP": place.address}[path]


def index_labels(index: int) -> dict[str, str]:
    """Returns the labels that Kubernetes adds to a pod of a StatefulSet."""
    return {_INDEX_LABEL: str(index)}


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda match: environ.get(match[1], match[0]), text)


def _hook(given: Mapping[str, Any]) -> tuple[str, ...]:
    if "sleep" in given:
        return ("sleep", str(given["sleep"]["seconds"]))
    return tuple(given.get("exec", {}).get("command", ()))


def _probe(given: Mapping[str, Any], container: Mapping[str, Any]) -> Probe:
    interval_s = float(given.get("periodSeconds", 10))
    return Probe(
        check=_check(given, container),
        interval_s=interval_s,
        timeout_s=float(given.get("timeoutSeconds", 1)),
        failures=int(given.get("failureThreshold", 3)),
        successes=int(given.get("successThreshold", 1)),
        delay_s=float(given.get("initialDelaySeconds", 0)),
        start_interval_s=interval_s,
    )


def _check(given: Mapping[str, Any], container: Mapping[str, Any]) -> Check:
    def number(port: int | str) -> int:
        return port_number([container], port)

    if "grpc" in given:
        return GrpcCheck(number(given["grpc"]["port"]), given["grpc"].get("service", ""))
    if "httpGet" in given:
        return HttpCheck(number(given["httpGet"]["port"]), given["httpGet"].get("path", "/"))
    if "tcpSocket" in given:
        return TcpCheck(number(given["tcpSocket"]["port"]))
    return ExecCheck(tuple(given["exec"]["command"]))
