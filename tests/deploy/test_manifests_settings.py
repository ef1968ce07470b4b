"""Pods of every overlay run programs, settings and ports that exist."""

from __future__ import annotations

import re

import pytest

import nearline
from gateway import http_server
from nearline.settings import SHARED_VARIABLES, ServerSettings, _check_variable
from retrieval.settings import RouterSettings
from tests.deploy.manifests import (
    DOCKERFILE,
    OVERLAYS,
    Manifest,
    Pod,
    of_kind,
    pod_named,
    pods,
    render,
    servers,
    settings_kind,
)

METRICS_PORT = 9464
overlays = pytest.mark.parametrize("overlay", OVERLAYS)
# Those that others call, so that endpoints have them.
CALLED = {"router", "embedding", "generation", "gateway", "ingest", "shards-a", "shards-b"}


def _uses_tls(pod: Pod) -> bool:
    return bool(pod.settings.tls_cert)


@overlays
def test_an_image_is_a_target_of_the_dockerfile_with_this_version(overlay: str) -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M)
    for pod in pods(overlay):
        assert pod.target in targets, pod.name
        assert pod.container["image"].rpartition(":")[2] == nearline.__version__


@overlays
def test_every_variable_is_a_setting_of_the_program_that_gets_it(overlay: str) -> None:
    for pod in pods(overlay):
        section = f"NEARLINE_{settings_kind(pod.module).section.upper()}_"
        for name in pod.own_environ:
            _check_variable(name)
            assert name.startswith(section) or name.removeprefix("NEARLINE_") in SHARED_VARIABLES
        # Unknown arguments and values out of range are errors.
        settings = pod.settings
        if isinstance(settings, RouterSettings):
            settings.check()


@overlays
def test_a_server_listens_for_others_where_its_pod_says(overlay: str) -> None:
    for pod in servers(overlay):
        settings = pod.settings
        found = {one["name"]: one["containerPort"] for one in pod.container["ports"]}
        service = "http" if pod.name == "gateway" else "grpc"
        assert found == {service: settings.port, "metrics": METRICS_PORT}
        assert settings.metrics_port == METRICS_PORT
        assert settings.host == "0.0.0.0"


@overlays
def test_a_server_is_protected_as_the_overlay_says(overlay: str) -> None:
    for pod in servers(overlay):
        settings = pod.settings
        if overlay in ("base", "dev"):
            assert settings.insecure and not settings.tls_cert
            continue
        mounts = {one["name"]: one["mountPath"] for one in pod.container["volumeMounts"]}
        assert not settings.insecure
        assert settings.tls_cert == f"{mounts['tls']}/tls.crt"
        assert settings.tls_key == f"{mounts['tls']}/tls.key"
        assert pod.environ["NEARLINE_TLS_CA"] == f"{mounts['tls']}/ca.crt"
        if isinstance(settings, ServerSettings):
            assert settings.keys == f"{mounts['keys']}/keys.toml"
        assert pod.environ["NEARLINE_TOKEN"]


@overlays
def test_probes_ask_where_the_server_listens_and_speak_tls_if_it_does(overlay: str) -> None:
    for pod in servers(overlay):
        probes = {key: value for key, value in pod.container.items() if key.endswith("Probe")}
        wanted = {"startupProbe", "livenessProbe"}
        if pod.name in CALLED:
            wanted.add("readinessProbe")
        assert set(probes) == wanted, pod.name
        for probe in probes.values():
            assert _asked(probe) == _wanted(pod)
            assert probe.get("timeoutSeconds", 1) <= probe["periodSeconds"]


def _asked(probe: Manifest) -> Manifest:
    return {key: probe[key] for key in ("grpc", "exec", "httpGet") if key in probe}


def _wanted(pod: Pod) -> Manifest:
    port, tls = pod.settings.port, _uses_tls(pod)
    if pod.name == "gateway":
        request: Manifest = {"path": "/healthz", "port": "http"}
        return {"httpGet": request | {"scheme": "HTTPS"} if tls else request}
    if not tls:
        return {"grpc": {"port": port}}
    return {"exec": {"command": ["python", "-P", "-m", "nearline.health", f"127.0.0.1:{port}"]}}


@overlays
def test_a_pod_that_stops_has_the_time_to_drain_before_it_is_killed(overlay: str) -> None:
    for pod in servers(overlay):
        settings, spec = pod.settings, pod.spec
        hook_s = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        needs_s = float(hook_s.get("seconds", 0))
        if isinstance(settings, ServerSettings):
            assert needs_s == 0, "a server serves on while endpoints forget it"
            # Endpoints take seconds to forget a pod that others call.
            assert settings.drain_s == (5 if pod.name in CALLED else 0)
            needs_s += settings.drain_s + settings.grace_s + getattr(settings, "notice_s", 0)
        else:
            assert needs_s == 5
            needs_s += http_server._GRACE_S
        assert needs_s + 5 <= spec["terminationGracePeriodSeconds"], pod.name


@overlays
def test_threads_are_as_many_as_the_cores_that_a_pod_asks_for(overlay: str) -> None:
    for pod in pods(overlay):
        threads = getattr(pod.settings, "threads", None)
        if threads is not None and overlay != "dev":
            assert str(threads) == pod.container["resources"]["requests"]["cpu"]
        assert threads != 0, f"{pod.name}: a thread for every core of the node"


@overlays
def test_a_client_learns_of_new_pods(overlay: str) -> None:
    for pod in servers(overlay):
        if isinstance(pod.settings, ServerSettings):
            assert 0 < pod.settings.connection_age_s <= 60
    for one in of_kind(overlay, "Deployment", "StatefulSet"):
        # Before the next old pod goes.
        if one["metadata"]["name"] != "redis":
            assert one["spec"]["minReadySeconds"] >= pods(overlay)[0].settings.connection_age_s


@pytest.mark.parametrize("overlay", ["base", "production", "gpu", "ray", "region", "dev"])
def test_the_router_knows_every_shard_that_runs(overlay: str) -> None:
    groups = [one for one in pods(overlay) if one.kind == "StatefulSet"]
    topology = ";".join(
        f"{number}="
        + ",".join(f"{one.name}-{number}.{one.name}:{one.settings.port}" for one in groups)
        for number in range(groups[0].replicas or 0)
    )
    assert pod_named(overlay, "router").settings.shards == topology
    assert {one.replicas for one in groups} == {2}
    assert len(groups) == (1 if overlay == "dev" else 2)


@pytest.mark.parametrize("overlay", ["base", "production", "gpu", "ray", "dev"])
def test_builds_make_as_many_shards_as_run(overlay: str) -> None:
    build = pod_named(overlay, "build").settings
    assert build.shards == pod_named(overlay, "shards-a").replicas
    assert build.store == pod_named(overlay, "router").settings.store


def test_the_store_of_one_node_is_its_volume() -> None:
    claims = {one["metadata"]["name"] for one in of_kind("dev", "PersistentVolumeClaim")}
    for pod in pods("dev"):
        if hasattr(pod.settings, "store") and pod.settings.store:
            mounts = {one["mountPath"]: one for one in pod.container["volumeMounts"]}
            (volume,) = [
                one
                for one in pod.spec["volumes"]
                if one["name"] == mounts[pod.settings.store]["name"]
            ]
            assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_a_second_region_reads_the_store_and_writes_to_no_change_log() -> None:
    names = {one.name for one in pods("region")}
    assert names == {"router", "shards-a", "shards-b", "embedding", "generation", "gateway"}
    router, shard = (pod_named("region", name).settings for name in ("router", "shards-a"))
    assert router.redis == shard.redis == ""
    assert router.redis_cache and router.record_share == 0
    assert router.store == shard.store == pod_named("production", "router").settings.store


def test_a_router_over_milvus_has_no_shards() -> None:
    settings = pod_named("milvus", "router").settings
    assert (settings.backend, settings.shards) == ("milvus", "")
    assert settings.milvus_uri and settings.milvus_token
    assert not [one for one in pods("milvus") if one.kind == "StatefulSet"]
    assert pod_named("milvus", "build").settings.promote is False


def test_what_can_use_a_gpu_has_one_to_itself() -> None:
    gpu = "nvidia.com/gpu"
    on_gpu = [one for one in pods("gpu") if one.target.endswith("-gpu")]
    assert {one.name for one in on_gpu} == {"embedding", "shards-a", "shards-b", "build"}
    for pod in on_gpu:
        assert pod.container["resources"]["limits"][gpu] == 1
        assert {"key": gpu, "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]
        assert pod.spec["nodeSelector"][f"{gpu}.present"] == "true"
        # Named, so that a pod does not go on, slow, without its GPU.
        assert pod.settings.device == "cuda"
    assert not any(gpu in str(one.spec) for one in pods("gpu") if one not in on_gpu)


def test_the_guide_to_compose_and_these_manifests_agree_on_ports() -> None:
    found = {one.name: one.settings.port for one in servers("production")}
    assert found == {
        "router": 7700,
        "embedding": 7701,
        "shards-a": 7702,
        "shards-b": 7702,
        "generation": 7703,
        "ingest": 7705,
        "gateway": 7706,
        "upkeep": 7707,
        "worker": 7708,
    }


@overlays
def test_every_object_has_a_name_of_its_own_in_the_namespace(overlay: str) -> None:
    named = [(one["kind"], one["metadata"]["name"]) for one in render(overlay)]
    assert len(named) == len(set(named)) > 20
    spaces = {one["metadata"].get("namespace") for one in render(overlay)}
    assert spaces == {"nearline", None}
