"""With the component `tracing`, every service sends traces to one collector, and may reach it."""

from __future__ import annotations

import json

import pytest

from nearline.tracing.tracer import endpoint_url
from tests.deploy.manifests import OVERLAYS, Pod, of_kind, pods, render
from tests.deploy.network_rules import Peer, allows, selects

# Of OTLP over gRPC.
PORT = 4317
_SERVICES = {
    *("router", "shards-a", "shards-b", "embedding", "generation"),
    *("gateway", "ingest", "worker", "upkeep"),
}


def _traced() -> list[Pod]:
    """Returns the pods of the programs that can trace."""
    return [one for one in pods("tracing") if hasattr(one.settings, "trace_endpoint")]


def _in_namespace(name: str) -> Peer:
    return Peer({"app": "otel-collector"}, {"kubernetes.io/metadata.name": name})


def test_every_service_sends_its_traces_to_the_same_collector() -> None:
    assert {one.name for one in _traced()} == _SERVICES
    for pod in _traced():
        # Given by the manifests, not by the image.
        assert pod.own_environ["NEARLINE_TRACE_SAMPLE"] == "0.01"
        assert pod.settings.trace_endpoint == pod.own_environ["NEARLINE_TRACE_ENDPOINT"]
    (endpoint,) = {one.settings.trace_endpoint for one in _traced()}
    assert endpoint_url(endpoint).endswith(f":{PORT}")


def test_a_build_which_does_not_trace_has_no_setting_of_it() -> None:
    (build,) = [one for one in pods("tracing") if one.name not in _SERVICES]
    assert not hasattr(build.settings, "trace_endpoint")
    assert "NEARLINE_TRACE_ENDPOINT" not in build.own_environ


def test_traced_pods_reach_the_port_of_the_collector_and_nothing_else_there() -> None:
    policies, traced = of_kind("tracing", "NetworkPolicy"), _traced()
    # A Service is NAME.NAMESPACE:PORT.
    host = traced[0].settings.trace_endpoint.rpartition(":")[0]
    collector = _in_namespace(host.split(".")[1])
    for pod in pods("tracing"):
        me = Peer(pod.labels)
        assert allows(policies, me, collector, PORT) == (pod in traced), pod.name
        assert not allows(policies, me, collector, PORT + 1)
        assert not allows(policies, me, _in_namespace("default"), PORT)
        assert not allows(policies, me, Peer(None), PORT)
        # Nobody sends traces to a service.
        assert not allows(policies, collector, me, PORT)


def test_the_policy_selects_every_pod_that_traces_and_no_other() -> None:
    (policy,) = [
        one for one in of_kind("tracing", "NetworkPolicy") if one["metadata"]["name"] == "tracing"
    ]
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Egress"]
    assert [one for one in pods("tracing") if selects(spec["podSelector"], one.labels)] == _traced()
    (rule,) = spec["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": PORT}]
    (peer,) = rule["to"]
    assert set(peer) == {"namespaceSelector"}


@pytest.mark.parametrize("overlay", [one for one in OVERLAYS if one != "tracing"])
def test_an_overlay_without_the_component_has_neither(overlay: str) -> None:
    assert "NEARLINE_TRACE" not in json.dumps(render(overlay))
    policies = of_kind(overlay, "NetworkPolicy")
    assert "tracing" not in [one["metadata"]["name"] for one in policies]
    for pod in pods(overlay):
        assert not allows(policies, Peer(pod.labels), _in_namespace("monitoring"), PORT)
