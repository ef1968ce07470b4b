"""Ingress rules in deploy/ name each public service, at its port, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from gateway.upstream import SERVICES

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "ingress"
DOCKERFILE = (FOLDER.parents[1] / "Dockerfile").read_text("utf-8")
ROUTER = {"RetrievalService", "AdminService"}
PORTS = {
    "embedding": int(*re.findall(r"NEARLINE_EMBEDDING_PORT=(\d+)", DOCKERFILE)),
    "router": int(*re.findall(r"NEARLINE_RETRIEVAL_PORT=(\d+)", DOCKERFILE)),
    "generation": int(*re.findall(r"NEARLINE_GENERATION_PORT=(\d+)", DOCKERFILE)),
    "gateway": int(*re.findall(r"NEARLINE_GATEWAY_PORT=(\d+)", DOCKERFILE)),
    "ingest": 7705,
}
# Where calls of each service go, with the port; "" is HTTP.
WANTED = {
    service.full_name: "router" if name in ROUTER else name.removesuffix("Service").lower()
    for name, service in SERVICES.items()
} | {health.SERVICE_NAME: "router", reflection.SERVICE_NAME: "router", "": "gateway"}


def _envoy() -> tuple[dict[str, str], dict[str, int]]:
    resources = yaml.safe_load((FOLDER / "envoy.yaml").read_text("utf-8"))["static_resources"]
    (listener,) = resources["listeners"]
    (filter_,) = listener["filter_chains"][0]["filters"]
    (host,) = filter_["typed_config"]["route_config"]["virtual_hosts"]
    targets = {
        route["match"]["prefix"].strip("/"): route["route"]["cluster"] for route in host["routes"]
    }
    # The first route that matches is taken.
    assert host["routes"][-1]["match"] == {"prefix": "/"}
    assert all(route["route"]["timeout"] == "0s" for route in host["routes"])
    ports = {}
    for cluster in resources["clusters"]:
        assert cluster["load_assignment"]["cluster_name"] == cluster["name"]
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        ports[cluster["name"]] = endpoint["endpoint"]["address"]["socket_address"]["port_value"]
        assert ("typed_extension_protocol_options" in cluster) == (cluster["name"] != "gateway")
    return targets, ports


def _nginx() -> tuple[dict[str, str], dict[str, int]]:
    text = re.sub("#.*", "", (FOLDER / "nginx.conf").read_text("utf-8"))
    assert text.count("{") == text.count("}")
    passed = re.findall(r"location (\S+) {\s*(?:grpc|proxy)_pass (?:grpc|http)://(\w+);", text)
    servers = re.findall(r"upstream (\w+) { server \w+:(\d+);", text)
    return (
        {path.strip("/"): name.removeprefix("nearline_") for path, name in passed},
        {name.removeprefix("nearline_"): int(port) for name, port in servers},
    )


@pytest.mark.parametrize("read", [_envoy, _nginx])
def test_each_public_service_is_reached_at_its_port_and_no_other(read: Any) -> None:
    found: tuple[Mapping[str, str], Mapping[str, int]] = read()
    assert found == (WANTED, PORTS)
