"""Kubernetes without a cluster: runs the pods of rendered manifests, their probes and hooks.

What controllers do is done on request: start, roll out, restart. As in a cluster, names notice a
second late that a pod ends. Not there: addresses of services, whose names stand for their pods;
several containers in a pod; scheduling, network policies, quotas, autoscaling.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.fleet.container_process import Executed, RunningContainer
from benchmarks.fleet.containers import Check, Container, Mount, Probe
from benchmarks.fleet.dockerfile import Image, read_stage
from benchmarks.fleet.fleet import ROOT, START_S, Fleet

_REFERENCE = re.compile(r"\$\(([A-Za-z_]\w*)\)")
_LABEL = re.compile(r"metadata\.labels\['(.+)'\]")
_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_IMAGES = "nearline-"
# Endpoints and DNS take about that long.
_LAG_S = 1.0


class Manifests:
    """The objects of a stream of YAML documents, as `kustomize build` prints them.

    workloads: Deployments, StatefulSets and CronJobs by name, in their order. services: By name.
    """

    def __init__(self, text: str) -> None:
        objects = {
            (one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one
        }
        kinds = ("Deployment", "StatefulSet", "CronJob")
        self.workloads = {name: one for (kind, name), one in objects.items() if kind in kinds}
        self.services = {name: one for (kind, name), one in objects.items() if kind == "Service"}
        self._objects = objects

    def data(self, kind: str, source: Mapping[str, Any]) -> dict[str, str]:
        """Returns the data of a ConfigMap or Secret; empty if it is optional and not there.

        Raises: KeyError: it is not there.
        """
        found = self._objects.get((kind, source["name"]))
        if found is None:
            if source.get("optional"):
                return {}
            raise KeyError(f"{kind} {source['name']}")
        values: dict[str, str] = found.get("data", {})
        if kind == "Secret":
            values = {key: base64.b64decode(value).decode() for key, value in values.items()}
        return {**values, **found.get("stringData", {})}


class PodPlace(NamedTuple):
    """Where a pod runs: its name, address, labels, and the folders of its volumes by name."""

    name: str
    address: str
    labels: Mapping[str, str]
    volumes: Mapping[str, Path]


def pod_template(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the template of the pods of a workload."""
    spec = workload["spec"]
    template: dict[str, Any] = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]
    return template


def pod_labels(workload: Mapping[str, Any], index: int) -> dict[str, str]:
    """Returns the labels of a pod, with the index that Kubernetes adds in a StatefulSet."""
    labels: dict[str, str] = pod_template(workload).get("metadata", {}).get("labels", {})
    return labels | ({_INDEX_LABEL: str(index)} if workload["kind"] == "StatefulSet" else {})


def pod_container(
    manifests: Manifests, workload: Mapping[str, Any], place: PodPlace, dockerfile: str
) -> Container:
    """Returns the only container of a pod."""
    spec = pod_template(workload)["spec"]
    assert "initContainers" not in spec, workload
    (given,) = spec["containers"]
    image = _image(given["image"], dockerfile)
    environ = image.environ | dict(_environment(manifests, given, place))
    command = given.get("command")
    words = [
        *(command or image.entrypoint),
        *(given.get("args") or (() if command else image.command)),
    ]
    security = spec.get("securityContext", {}) | given.get("securityContext", {})
    user = f"{security['runAsUser']}:{security['runAsGroup']}" if "runAsUser" in security else ""
    hook = given.get("lifecycle", {}).get("preStop", {}).get("sleep")
    return Container(
        name=place.name,
        words=tuple(_expanded(str(word), environ) for word in words),
        environ=environ,
        mounts={
            one["mountPath"]: Mount(place.volumes[one["name"]], bool(one.get("readOnly")))
            for one in given.get("volumeMounts", ())
        },
        user=user or image.user,
        pre_stop=("sleep", str(hook["seconds"])) if hook else (),
        grace_s=float(spec.get("terminationGracePeriodSeconds", 30)),
        restarts=spec.get("restartPolicy", "Always") == "Always",
        started=_probe("startupProbe", given),
        ready=_probe("readinessProbe", given),
        alive=_probe("livenessProbe", given),
    )


def _image(name: str, dockerfile: str) -> Image:
    name = name.rpartition("/")[2].partition(":")[0].partition("@")[0]
    if not name.startswith(_IMAGES):
        return Image()
    stage = name.removeprefix(_IMAGES).replace("index-builder", "index_builder")
    return read_stage(dockerfile, stage)


def _environment(
    manifests: Manifests, container: Mapping[str, Any], place: PodPlace
) -> Iterator[tuple[str, str]]:
    """Yields the variables that a container sets; a later one overrides an earlier one."""
    for source in container.get("envFrom", ()):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                yield from manifests.data(kind, source[key]).items()
    for one in container.get("env", ()):
        value: str | None = str(one.get("value", ""))
        if source := one.get("valueFrom"):
            value = _value(manifests, source, place)
        if value is not None:
            yield one["name"], value


def _value(manifests: Manifests, source: Mapping[str, Any], place: PodPlace) -> str | None:
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if key in source:
            return manifests.data(kind, source[key]).get(source[key]["key"])
    path = source["fieldRef"]["fieldPath"]
    if label := _LABEL.fullmatch(path):
        return place.labels[label[1]]
    return {"metadata.name": place.name, "status.podIP": place.address}[path]


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda match: environ.get(match[1], match[0]), text)


def _probe(name: str, container: Mapping[str, Any]) -> Probe | None:
    if not (given := container.get(name)):
        return None
    interval_s = float(given.get("periodSeconds", 10))
    asked = given.get("grpc") or given.get("httpGet") or {"port": 0}
    names = {one["name"]: int(one["containerPort"]) for one in container.get("ports", ())}
    return Probe(
        check=Check(
            words=tuple(given.get("exec", {}).get("command", ())),
            port=names.get(asked["port"], asked["port"]),
            path=asked.get("path", ""),
        ),
        interval_s=interval_s,
        timeout_s=float(given.get("timeoutSeconds", 1)),
        failures=int(given.get("failureThreshold", 3)),
        start_interval_s=interval_s,
    )


@dataclass(slots=True)
class Pod:
    """A running pod.

    leaves_s: Once it was told to stop: time of the event loop until which it is an endpoint.
    """

    name: str
    address: str
    workload: str
    labels: Mapping[str, str]
    container: RunningContainer
    leaves_s: float | None = None

    @property
    def is_endpoint(self) -> bool:
        """Whether names of services stand for it."""
        if self.leaves_s is None:
            return self.container.ready
        return asyncio.get_running_loop().time() < self.leaves_s


class Cluster(Fleet):
    """The workloads of manifests on this machine.

    Args:
        manifests: What to run.
        folder: As for `Fleet`.
    """

    def __init__(self, manifests: Manifests, folder: Path) -> None:
        super().__init__(folder)
        self.pods: list[Pod] = []
        self._manifests = manifests
        self._dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
        self._made = itertools.count(1)
        self._write_names()

    def of(self, workload: str) -> list[Pod]:
        """Returns the pods of a workload that are not ending, the oldest first."""
        return [pod for pod in self.pods if pod.workload == workload and pod.leaves_s is None]

    async def apply(self) -> None:
        """Starts all pods but those of jobs, and waits until they are ready."""
        started = [
            self._start_pod(name, index)
            for name, workload in self._manifests.workloads.items()
            if workload["kind"] != "CronJob"
            for index in range(int(workload["spec"].get("replicas", 1)))
        ]
        await asyncio.gather(*(pod.container.wait_ready(START_S) for pod in started))

    async def roll_out(self, name: str) -> None:
        """Replaces the pods of a workload, as `kubectl rollout restart` does.

        A Deployment starts a pod more, and ends an old one when it is ready (maxSurge 1 and
        maxUnavailable 0); a StatefulSet replaces one pod after the other, the last one first.
        """
        stateful = self._manifests.workloads[name]["kind"] == "StatefulSet"
        ending = []
        for pod in sorted(self.of(name), key=lambda pod: pod.name, reverse=stateful):
            if stateful:
                await self.end(pod)
            new = self._start_pod(name, int(pod.name.rpartition("-")[2]) if stateful else 0)
            await new.container.wait_ready(START_S)
            if not stateful:
                # The controller does not wait for pods that end.
                ending.append(asyncio.create_task(self.end(pod)))
        await asyncio.gather(*ending)

    async def end(self, pod: Pod) -> None:
        """Stops a pod, which leaves the endpoints a second after that has begun."""
        pod.leaves_s = asyncio.get_running_loop().time() + _LAG_S
        stop, _ = await asyncio.gather(pod.container.stop(), self._forget_later())
        self.stops.append(stop)
        self.pods.remove(pod)

    async def _forget_later(self) -> None:
        await asyncio.sleep(_LAG_S)
        self._write_names()

    async def run_job(self, name: str) -> Executed:
        """Runs the pod of a CronJob once, as `kubectl create job --from` does, until it ends."""
        pod = self._start_pod(name, 0)
        code = await pod.container.wait()
        self.pods.remove(pod)
        return Executed(code, pod.container.log.read_text("utf-8", "replace"))

    def claim(self, name: str) -> Path:
        """Returns the folder of a PersistentVolumeClaim that pods share."""
        return self.volume(f"claim-{name}", "10001:10001")

    async def close(self) -> None:
        """Ends everything; Redis last, since others save there what they hold."""
        for last in (False, True):
            pods = [pod for pod in self.pods if (pod.workload == "redis") == last]
            await asyncio.gather(*(self.end(pod) for pod in pods))

    def _start_pod(self, name: str, index: int) -> Pod:
        workload = self._manifests.workloads[name]
        labels = pod_labels(workload, index)
        pod_name = f"{name}-{index if _INDEX_LABEL in labels else f'x{next(self._made)}'}"
        volumes = dict(self._pod_volumes(workload, pod_name))
        place = PodPlace(pod_name, self.take_address(), labels, volumes)
        container = pod_container(self._manifests, workload, place, self._dockerfile)
        running = self.prepare(container, place.address, self._write_names)
        pod = Pod(pod_name, place.address, name, labels, running)
        self.pods.append(pod)
        self._write_names()
        running.start()
        return pod

    def _pod_volumes(self, workload: Mapping[str, Any], pod: str) -> Iterator[tuple[str, Path]]:
        spec = pod_template(workload)["spec"]
        security = spec.get("securityContext", {})
        user = f"{security.get('runAsUser', 0)}:{security.get('fsGroup', 0)}"
        own = [one["metadata"] for one in workload["spec"].get("volumeClaimTemplates", ())]
        for volume in (*own, *spec.get("volumes", ())):
            claim = volume.get("persistentVolumeClaim")
            name = f"claim-{claim['claimName']}" if claim else f"{volume['name']}-{pod}"
            yield volume["name"], self.volume(name, user)

    def _write_names(self) -> None:
        names = []
        for name, service in self._manifests.services.items():
            spec = service["spec"]
            for pod in self.pods:
                if not spec["selector"].items() <= pod.labels.items():
                    continue
                if spec.get("publishNotReadyAddresses") or pod.is_endpoint:
                    workload = self._manifests.workloads[pod.workload]
                    governs = workload["spec"].get("serviceName") == name
                    # gRPC's resolver takes all names of an address for one: a pod has a single name
                    # here.
                    own = governs and spec.get("clusterIP") == "None"
                    names.append((pod.address, f"{pod.name}.{name}" if own else name))
        self.write_hosts(names)
