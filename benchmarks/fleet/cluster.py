"""Kubernetes without a cluster: runs the pods of manifests, their probes, hooks and services.

What controllers do is done on request: start, roll out, drain, restart. As in a cluster, balancers
and names notice a second late that a pod ends. Not there: scheduling, network policies, quotas,
autoscaling.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fleet.balancer import Balancer
from benchmarks.fleet.container_process import Executed, RunningContainer, Stop, start_client
from benchmarks.fleet.containers import Container, Mount
from benchmarks.fleet.manifests import (
    Manifests,
    PodPlace,
    Service,
    Workload,
    index_labels,
    pod_containers,
    port_number,
)
from benchmarks.fleet.network import Addresses, write_hosts
from benchmarks.fleet.volumes import fleet_folders, owned_folder
from nearline.errors import NotReady

START_S = 300.0
# Endpoints, DNS and kube-proxy take about that long.
_LAG_S = 1.0


@dataclass(slots=True)
class Pod:
    """A running pod.

    leaves_s: Once it was told to stop: time of the event loop until which it is an endpoint.
    """

    name: str
    address: str
    workload: Workload
    labels: Mapping[str, str]
    containers: list[RunningContainer]
    leaves_s: float | None = None

    @property
    def ready(self) -> bool:
        """Whether all containers are ready."""
        return bool(self.containers) and all(one.ready for one in self.containers)

    async def wait_ready(self, timeout_s: float = START_S) -> None:
        """Waits until it is ready. Raises: NotReady: it is not in time."""
        for one in self.containers:
            await one.wait_ready(timeout_s)

    async def stop(self) -> list[Stop]:
        """Stops its containers together."""
        return list(await asyncio.gather(*(one.stop() for one in self.containers)))


class Cluster:
    """The workloads of manifests on this machine.

    Args:
        manifests: What to run.
        dockerfile: Text of the Dockerfile of the images.
        folder: An empty folder for volumes, logs and roots.
        images: Folders that images bring, by their path in the container.
        added: Variables of every container besides those of the manifests. Optional.
    """

    def __init__(
        self,
        manifests: Manifests,
        dockerfile: str,
        folder: Path,
        images: Mapping[str, Path],
        added: Mapping[str, str] | None = None,
    ) -> None:
        self.manifests = manifests
        self.stops: list[Stop] = []
        self.pods: list[Pod] = []
        self._dockerfile = dockerfile
        self._images = images
        self._added = added or {}
        self._volumes = folder / "volumes"
        self._folders = fleet_folders(folder)
        self._addresses = Addresses()
        self._numbers = itertools.count(1)
        self._balancers: dict[str, tuple[str, list[Balancer]]] = {}

    async def start(self) -> None:
        """Starts the services that have an address of their own."""
        for service in self.manifests.services.values():
            if service.headless:
                continue
            address = self._addresses.take()
            balancers = []
            for port in service.ports:
                balancer = Balancer(lambda one=service, at=port: self.endpoints(one.name, at))  # type: ignore[misc]
                await balancer.start(address, port)
                balancers.append(balancer)
            self._balancers[service.name] = (address, balancers)
        self._write_hosts()

    def of(self, workload: str) -> list[Pod]:
        """Returns the pods of a workload that are not ending, the oldest first."""
        return [pod for pod in self.pods if pod.workload.name == workload and pod.leaves_s is None]

    def address(self, service: str) -> str:
        """Returns the address of a service that has one."""
        return self._balancers[service][0]

    def endpoints(self, service: str, port: int) -> list[tuple[str, int]]:
        """Returns the endpoints of a port of a service."""
        found = self.manifests.services[service]
        target = found.ports[port]
        return [
            (pod.address, port_number(pod.workload.spec["containers"], target))
            for pod in self._pods_of(found)
        ]

    async def apply(self, workloads: Iterable[str] = (), timeout_s: float = START_S) -> None:
        """Starts the pods of workloads, as `kubectl apply` does, and waits until all are ready.

        workloads: Names; empty means all.
        """
        chosen = list(workloads) or list(self.manifests.workloads)
        started = [
            await self._start_pod(self.manifests.workloads[name], index)
            for name in chosen
            for index in range(self.manifests.workloads[name].replicas)
        ]
        await asyncio.gather(*(pod.wait_ready(timeout_s) for pod in started))

    async def roll_out(self, name: str, timeout_s: float = START_S) -> None:
        """Replaces the pods of a workload, as `kubectl rollout restart` does.

        A Deployment starts a pod more, and ends an old one when it is ready (maxSurge 1 and
        maxUnavailable 0); a StatefulSet replaces one pod after the other, the last one first.
        """
        workload = self.manifests.workloads[name]
        old = self.of(name)
        if workload.kind == "StatefulSet":
            for pod in sorted(old, key=lambda pod: pod.name, reverse=True):
                await self.end(pod)
                index = int(pod.name.rpartition("-")[2])
                new = await self._start_pod(workload, index)
                await new.wait_ready(timeout_s)
            return
        ending = []
        for pod in old:
            new = await self._start_pod(workload, 0)
            await new.wait_ready(timeout_s)
            # The controller does not wait for pods that end.
            ending.append(asyncio.create_task(self.end(pod)))
        await asyncio.gather(*ending)

    async def end(self, pod: Pod) -> list[Stop]:
        """Ends a pod: it is told to stop, and leaves the endpoints a second later."""
        loop = asyncio.get_running_loop()
        pod.leaves_s = loop.time() + _LAG_S
        stops, _ = await asyncio.gather(pod.stop(), self._forget_later())
        self.stops += stops
        self.pods.remove(pod)
        return stops

    async def _forget_later(self) -> None:
        await asyncio.sleep(_LAG_S)
        self._write_hosts()

    async def run_job(self, name: str) -> Executed:
        """Runs the pod of a CronJob once, as `kubectl create job --from` does, until it ends."""
        pod = await self._start_pod(self.manifests.workloads[name], 0)
        (job,) = pod.containers
        code = await job.wait()
        self.pods.remove(pod)
        return Executed(code, job.log.read_text("utf-8", "replace"))

    def start_client(
        self, name: str, module: str, arguments: Sequence[str] = ()
    ) -> RunningContainer:
        """Starts a program of this checkout, which finds the services by their names."""
        return start_client(name, module, arguments, self._addresses.take(), self._folders)

    async def close(self) -> None:
        """Ends everything; Redis last, since others save there what they hold."""
        order = sorted(self.pods, key=lambda pod: pod.workload.name == "redis")
        for _, group in itertools.groupby(order, key=lambda pod: pod.workload.name == "redis"):
            await asyncio.gather(*(self.end(pod) for pod in list(group)))
        for _, balancers in self._balancers.values():
            for balancer in balancers:
                await balancer.close()

    async def _start_pod(self, workload: Workload, index: int) -> Pod:
        stateful = workload.kind == "StatefulSet"
        name = f"{workload.name}-{index if stateful else f'x{next(self._numbers)}'}"
        labels = dict(workload.labels) | (index_labels(index) if stateful else {})
        place = PodPlace(name, self._addresses.take(), labels, self._pod_volumes(workload, name))
        initial, others = pod_containers(self.manifests, workload, place, self._dockerfile)
        for container in initial:
            running = RunningContainer(self._with_image(container), place.address, self._folders)
            running.start()
            if await running.wait():
                raise NotReady(f"{running.name} failed:\n{running.tail()}")
        containers = [
            RunningContainer(self._with_image(one), place.address, self._folders, self._write_hosts)
            for one in others
        ]
        pod = Pod(name, place.address, workload, labels, containers)
        self.pods.append(pod)
        self._write_hosts()
        for running in containers:
            running.start()
        return pod

    def _with_image(self, container: Container) -> Container:
        brought = {
            path: Mount(found, True)
            for path, found in self._images.items()
            if path in container.environ.values()
        }
        return replace(
            container,
            mounts={**container.mounts, **brought},
            environ={**container.environ, **self._added},
        )

    def _pod_volumes(self, workload: Workload, pod: str) -> dict[str, Path]:
        security = workload.spec.get("securityContext", {})
        user = f"{security.get('runAsUser', 0)}:{security.get('fsGroup', 0)}"
        found = {
            claim: owned_folder(self._volumes / f"{claim}-{pod}", user) for claim in workload.claims
        }
        for volume in workload.spec.get("volumes", ()):
            name = volume["name"]
            if claim := volume.get("persistentVolumeClaim"):
                folder = self._volumes / f"claim-{claim['claimName']}"
            elif "emptyDir" in volume:
                folder = self._volumes / f"{name}-{pod}"
            else:
                raise ValueError(f"volume {name} of {workload.name} is not known to the runner")
            found[name] = owned_folder(folder, user)
        return found

    def claim(self, name: str) -> Path:
        """Returns the folder of a PersistentVolumeClaim that pods share."""
        return owned_folder(self._volumes / f"claim-{name}", "10001:10001")

    def _pods_of(self, service: Service) -> list[Pod]:
        """Returns the pods that a service stands for now."""
        return [
            pod
            for pod in self.pods
            if service.selector.items() <= pod.labels.items()
            and (service.unready_too or _is_endpoint(pod))
        ]

    def _write_hosts(self) -> None:
        names: list[tuple[str, str]] = []
        for service in self.manifests.services.values():
            if not service.headless:
                if service.name in self._balancers:
                    names.append((self._balancers[service.name][0], service.name))
                continue
            # gRPC's resolver takes all names of an address for one: a pod has a single name here.
            names += [
                (
                    pod.address,
                    f"{pod.name}.{service.name}"
                    if pod.workload.service == service.name
                    else service.name,
                )
                for pod in self._pods_of(service)
            ]
        write_hosts(self._folders.hosts, names)


def _is_endpoint(pod: Pod) -> bool:
    if pod.leaves_s is None:
        return pod.ready
    return asyncio.get_running_loop().time() < pod.leaves_s


@contextlib.asynccontextmanager
async def cluster(
    manifests: Manifests,
    dockerfile: str,
    folder: Path,
    images: Mapping[str, Path],
    added: Mapping[str, str] | None = None,
) -> AsyncIterator[Cluster]:
    """Makes a cluster for the duration of the block, and ends its pods with it."""
    made = Cluster(manifests, dockerfile, folder, images, added)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
