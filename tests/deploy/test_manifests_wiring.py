"""Objects of every overlay name each other rightly: selectors, ports, volumes, secrets."""

from __future__ import annotations

import base64
import re

import pytest
import yaml

from nearline_cli.local.bundled_redis import SETTINGS as REDIS_SETTINGS
from tests.deploy.manifests import (
    FOLDER,
    OVERLAYS,
    SECRETS,
    Manifest,
    addresses,
    of_kind,
    pods,
    target_of,
)
from tests.deploy.network_rules import selects

overlays = pytest.mark.parametrize("overlay", OVERLAYS)


@overlays
def test_every_address_that_a_program_calls_is_that_of_a_service(overlay: str) -> None:
    for pod in pods(overlay):
        for address in addresses(pod.settings):
            assert target_of(overlay, address).settings.port == int(address.rpartition(":")[2])


@overlays
def test_a_service_finds_the_pods_of_one_workload_at_their_port(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        if name == "redis":
            continue
        (port,) = spec["ports"]
        pod = target_of(overlay, f"{name}:{port['port']}")
        assert pod.name == name
        assert port["targetPort"] in [one["name"] for one in pod.container["ports"]]
        # Clients of gRPC balance calls over the pods that they see; those of HTTP do not.
        assert (spec.get("clusterIP") == "None") == (name != "gateway")


@overlays
def test_a_workload_selects_its_own_pods_alone(overlay: str) -> None:
    workloads = of_kind(overlay, "Deployment", "StatefulSet")
    for one in workloads:
        selected = [
            other["metadata"]["name"]
            for other in workloads
            if selects(one["spec"]["selector"], other["spec"]["template"]["metadata"]["labels"])
        ]
        assert selected == [one["metadata"]["name"]]
    services = {one["metadata"]["name"] for one in of_kind(overlay, "Service")}
    assert {one["spec"]["serviceName"] for one in of_kind(overlay, "StatefulSet")} <= services


@overlays
def test_pods_are_unprivileged_and_write_only_to_their_volumes(overlay: str) -> None:
    for pod in pods(overlay):
        assert pod.spec["enableServiceLinks"] is False
        assert pod.spec["automountServiceAccountToken"] is False
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = pod.container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]) and resources["limits"]["memory"]
        mounts = {one["name"]: one["mountPath"] for one in pod.container["volumeMounts"]}
        assert mounts["tmp"] == "/tmp"
        if "NEARLINE_CACHE_DIR" in pod.own_environ:
            assert pod.own_environ["NEARLINE_CACHE_DIR"] == mounts["cache"]
        # A volume over the model of the image would hide it.
        assert pod.name != "embedding" or "cache" not in mounts


@overlays
def test_every_volume_account_map_and_secret_is_there(overlay: str) -> None:
    accounts = {one["metadata"]["name"] for one in of_kind(overlay, "ServiceAccount")}
    claims = {one["metadata"]["name"] for one in of_kind(overlay, "PersistentVolumeClaim")}
    examples = _secret_examples() | {("tls", key) for key in ("tls.crt", "tls.key", "ca.crt")}
    for one in of_kind(overlay, "Deployment", "StatefulSet", "CronJob"):
        text = yaml.safe_dump(one)
        (spec,) = [pod.spec for pod in pods(overlay) if pod.name == one["metadata"]["name"]] or [
            one["spec"]["template"]["spec"]
        ]
        templates = [
            claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])
        ]
        volumes = [volume["name"] for volume in spec["volumes"]] + templates
        (container,) = spec["containers"]
        assert sorted(volumes) == sorted(mount["name"] for mount in container["volumeMounts"])
        # `documents` is the operator's.
        assert set(re.findall(r"claimName: (\S+)", text)) <= claims | {"documents"}
        assert {spec.get("serviceAccountName", "store")} <= accounts
        maps = {found["metadata"]["name"] for found in of_kind(overlay, "ConfigMap")}
        made = {found["metadata"]["name"] for found in of_kind(overlay, "Secret")}
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "configMapKeyRef" in source:
                assert source["configMapKeyRef"]["name"] in maps
            if (secret := source.get("secretKeyRef")) and secret["name"] not in made:
                assert (secret["name"], secret["key"]) in examples | {("milvus", "token")}
        for name in re.findall(r"secretName: (\S+)", text):
            assert name in {name for name, _ in examples}


def _secret_examples() -> set[tuple[str, str]]:
    text = (FOLDER / "overlays/production/secrets.example.yaml").read_text("utf-8")
    return {
        (one["metadata"]["name"], key)
        for one in yaml.safe_load_all(text)
        for key in one["stringData"]
    }


@overlays
def test_no_secret_is_in_the_manifests(overlay: str) -> None:
    for one in of_kind(overlay, "Secret"):
        # The Redis of one node has no password.
        assert overlay == "dev"
        assert base64.b64decode(one["data"]["url"]) == b"redis://redis:6379/0"
    for pod in pods(overlay):
        for variable in pod.container["env"]:
            if re.search(r"(TOKEN|KEY|PASSWORD|REDIS)$", variable["name"]):
                path = variable.get("value", "/")
                assert path.startswith("/"), variable["name"]
    assert set(SECRETS) <= _secret_examples() | {("milvus", "token")}


def test_the_redis_of_one_node_keeps_things_as_the_bundled_one_does() -> None:
    (redis,) = [one for one in of_kind("dev", "StatefulSet") if one["metadata"]["name"] == "redis"]
    container: Manifest = redis["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["valkey-server"]
    words = container["args"]
    given = {
        flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    assert given == {**REDIS_SETTINGS, "dir": "/data", "protected-mode": "no"}
