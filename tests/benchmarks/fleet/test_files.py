"""The runner reads Dockerfiles, Compose files and manifests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from benchmarks.fleet.compose import read_compose, seconds
from benchmarks.fleet.containers import Check, Mount
from benchmarks.fleet.dockerfile import read_stage
from benchmarks.fleet.kubernetes import Manifests, PodPlace, pod_container, pod_labels

DOCKERFILE = """
ARG BASE=python
FROM ${BASE} AS base
# ENV LEFT=out
ENV A=1 \\
    B="two words"
CMD ["never"]
FROM base AS thing
ENV A=3
VOLUME /cache /store
USER 10001:10001
ENTRYPOINT ["python", "-m", "thing"]
FROM base AS thing-gpu
USER 0
"""
COMPOSE = """
x-service: &service
  restart: unless-stopped
  stop_grace_period: 1m10s
  tmpfs: [/tmp]
  environment: &environment {SHARED: "${WHERE:-here}"}
services:
  thing:
    <<: *service
    build: {context: ., target: thing}
    command: [--port, "1"]
    environment: {<<: *environment, A: 4}
    stop_signal: SIGINT
    volumes: ["data:/store:ro", "./file:/etc/file"]
    depends_on: {other: {condition: service_healthy}}
    healthcheck: {test: [CMD, check, "127.0.0.1:1"], interval: 30s, start_interval: 2s, retries: 5}
  other: {image: redis, command: redis-server --save '', profiles: [more]}
"""
MANIFESTS = """
apiVersion: v1
kind: Secret
metadata: {name: redis}
data: {url: cmVkaXM6Ly9yZWRpcw==}
---
kind: Service
metadata: {name: thing}
spec: {clusterIP: None, selector: {app: thing}, ports: [{port: 80, targetPort: http}]}
---
kind: StatefulSet
metadata: {name: thing}
spec:
  replicas: 2
  serviceName: thing
  volumeClaimTemplates: [{metadata: {name: data}}]
  template:
    metadata: {labels: {app: thing}}
    spec:
      terminationGracePeriodSeconds: 40
      securityContext: {runAsUser: 7, runAsGroup: 8}
      containers:
        - name: main
          image: registry.example/nearline-thing:0.2.0
          args: [--redis, $(REDIS), --not, $(UNKNOWN)]
          env:
            - {name: REDIS, valueFrom: {secretKeyRef: {name: redis, key: url}}}
            - name: INDEX
              valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
            - {name: LACKS, valueFrom: {secretKeyRef: {name: none, key: url, optional: true}}}
          ports: [{name: http, containerPort: 8080}]
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          startupProbe: {grpc: {port: http}, periodSeconds: 2, failureThreshold: 9}
          readinessProbe: {httpGet: {port: http, path: /healthz}}
          volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
"""


def test_a_stage_has_what_the_stages_before_it_set() -> None:
    image = read_stage(DOCKERFILE, "thing")
    assert (image.entrypoint, image.command) == (("python", "-m", "thing"), ())
    assert image.environ == {"A": "3", "B": "two words"}
    assert (image.user, image.volumes) == ("10001:10001", ("/cache", "/store"))
    assert read_stage(DOCKERFILE, "thing-gpu").command == ("never",)
    with pytest.raises(KeyError):
        read_stage(DOCKERFILE, "none")


def test_a_service_has_what_its_image_and_the_file_say(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE, "utf-8")
    (tmp_path / "compose.yaml").write_text(COMPOSE, "utf-8")
    services = read_compose(tmp_path / "compose.yaml", {})
    thing, other = services["thing"], services["other"]
    one = thing.container
    assert one.words == ("python", "-m", "thing", "--port", "1")
    assert one.environ == {"A": "4", "B": "two words", "SHARED": "here"}
    assert (one.user, one.tmpfs, one.restarts) == ("10001:10001", ("/tmp",), True)
    assert (one.grace_s, one.stop_signal) == (70.0, signal.SIGINT)
    assert thing.volumes == {"/store": ("data", True), "/etc/file": (f"{tmp_path}/file", False)}
    assert thing.needs == ("other",)
    assert one.ready is not None and one.ready.check == Check(("check", "127.0.0.1:1"))
    assert (one.ready.interval_s, one.ready.start_interval_s, one.ready.failures) == (30.0, 2.0, 5)
    assert other.container.words == ("redis-server", "--save", "")
    assert (other.profiles, other.image, other.needs) == (("more",), None, ())
    assert not other.container.restarts
    there = read_compose(tmp_path / "compose.yaml", {"WHERE": "there"})["thing"]
    assert there.container.environ["SHARED"] == "there"


def test_a_key_that_the_runner_does_not_know_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE, "utf-8")
    (tmp_path / "compose.yaml").write_text("services: {one: {image: x, pid: host}}", "utf-8")
    with pytest.raises(ValueError, match="pid"):
        read_compose(tmp_path / "compose.yaml", {})


@pytest.mark.parametrize(("text", "known"), [("10s", 10.0), ("1m30s", 90.0), ("500ms", 0.5)])
def test_durations_are_those_of_compose(text: str, known: float) -> None:
    assert seconds(text) == known


def test_a_pod_has_what_its_template_configuration_and_image_say(tmp_path: Path) -> None:
    manifests = Manifests(MANIFESTS)
    workload = manifests.workloads["thing"]
    place = PodPlace("thing-1", "127.1.1.1", pod_labels(workload, 1), {"data": tmp_path})
    main = pod_container(manifests, workload, place, DOCKERFILE)
    redis = "redis://redis"
    assert main.words == ("python", "-m", "thing", "--redis", redis, "--not", "$(UNKNOWN)")
    assert main.environ == {"A": "3", "B": "two words", "REDIS": redis, "INDEX": "1"}
    assert (main.user, main.grace_s, main.pre_stop) == ("7:8", 40.0, ("sleep", "5"))
    assert main.mounts == {"/data": Mount(tmp_path, True)}
    assert main.started is not None and main.started.check == Check(port=8080)
    assert (main.started.interval_s, main.started.failures) == (2.0, 9)
    assert main.ready is not None and main.ready.check == Check(port=8080, path="/healthz")


def test_a_reference_to_configuration_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    manifests = Manifests(MANIFESTS.replace("kind: Secret", "kind: Other"))
    workload = manifests.workloads["thing"]
    place = PodPlace("thing-0", "127.1.1.1", pod_labels(workload, 0), {"data": tmp_path})
    with pytest.raises(KeyError, match="redis"):
        pod_container(manifests, workload, place, DOCKERFILE)
