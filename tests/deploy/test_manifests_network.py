"""Network policies, certificates and the ingress of every overlay fit what calls what."""

from __future__ import annotations

import itertools

import pytest

from tests.deploy.manifests import (
    OVERLAYS,
    addresses,
    of_kind,
    pod_named,
    pods,
    servers,
    target_of,
)
from tests.deploy.network_rules import Peer, allows

overlays = pytest.mark.parametrize("overlay", OVERLAYS)
MONITORING = Peer({"app": "prometheus"}, {"kubernetes.io/metadata.name": "monitoring"})
CALLER = Peer({"app": "shop"}, {"nearline-access": "true"})
STRANGER = Peer({"app": "shop"}, {"kubernetes.io/metadata.name": "default"})
DNS = Peer({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"})
OUTSIDE = Peer(None)


@overlays
def test_policies_let_calls_through_that_settings_name(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    for pod in pods(overlay):
        me = Peer(pod.labels)
        assert allows(policies, me, DNS, 53, "UDP")
        for address in addresses(pod.settings):
            target = target_of(overlay, address)
            assert allows(policies, me, Peer(target.labels), target.settings.port), address
        settings = pod.settings
        if any(getattr(settings, one, "") for one in ("redis", "redis_cache")):
            redis = Peer({"app.kubernetes.io/name": "redis"}) if overlay == "dev" else OUTSIDE
            assert allows(policies, me, redis, 6379)
        if "://" in getattr(settings, "store", ""):
            assert allows(policies, me, OUTSIDE, 443)


@overlays
def test_policies_let_nobody_else_through(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    called = {
        (pod.name, target_of(overlay, address).name)
        for pod in pods(overlay)
        for address in addresses(pod.settings)
    }
    for source, target in itertools.permutations(servers(overlay), 2):
        allowed = allows(policies, Peer(source.labels), Peer(target.labels), target.settings.port)
        if not allowed:
            assert (source.name, target.name) not in called
        elif (source.name, target.name) not in called:
            # The region has fewer programs than its policies name; nothing else may differ.
            assert overlay == "region"
    for pod in servers(overlay):
        me, port = Peer(pod.labels), pod.settings.port
        assert allows(policies, CALLER, me, port) == (pod.name in {"router", "gateway"})
        assert not allows(policies, STRANGER, me, port)
        assert allows(policies, MONITORING, me, 9464)
        assert not allows(policies, CALLER, me, 9464)
    for name in ("embedding", "gateway"):
        assert not allows(policies, Peer(pod_named(overlay, name).labels), OUTSIDE, 443)


def test_a_network_policy_is_evaluated_as_kubernetes_does() -> None:
    deny = {"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
    rule = {"from": [{"podSelector": {"matchLabels": {"a": "1"}}}]}
    ingress = {
        "spec": {
            "podSelector": {"matchLabels": {"b": "1"}},
            "policyTypes": ["Ingress"],
            "ingress": [rule | {"ports": [{"protocol": "TCP", "port": 1}]}],
        }
    }
    egress = {"spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}}
    one, two = Peer({"a": "1"}), Peer({"b": "1"})
    assert allows([], one, two, 1)
    assert not allows([deny], one, two, 1)
    assert not allows([deny, ingress], one, two, 1)
    assert allows([deny, ingress, egress], one, two, 1)
    assert not allows([deny, ingress, egress], one, two, 2)
    # The same labels in another namespace are somebody else.
    assert not allows([deny, ingress, egress], Peer({"a": "1"}, {"x": "y"}), two, 1)


@pytest.mark.parametrize("overlay", ["production", "region"])
def test_the_ingress_leads_to_the_router_and_the_gateway(overlay: str) -> None:
    (gateway,) = of_kind(overlay, "Gateway")
    for kind, name in (("GRPCRoute", "router"), ("HTTPRoute", "gateway")):
        (route,) = of_kind(overlay, kind)
        assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"]}]
        (rule,) = route["spec"]["rules"]
        (behind,) = rule["backendRefs"]
        assert target_of(overlay, f"{behind['name']}:{behind['port']}").name == name
        (host,) = route["spec"]["hostnames"]
        assert gateway["spec"]["listeners"][0]["hostname"] == f"*.{host.partition('.')[2]}"
    validated = {
        one["spec"]["validation"]["hostname"] for one in of_kind(overlay, "BackendTLSPolicy")
    }
    assert validated == {"router", "gateway"}


@pytest.mark.parametrize("overlay", ["production", "gpu", "ray", "region", "milvus", "tracing"])
def test_the_certificate_has_every_name_that_clients_call(overlay: str) -> None:
    (certificate,) = of_kind(overlay, "Certificate")
    names = set(certificate["spec"]["dnsNames"])
    called = {one.rpartition(":")[0] for pod in pods(overlay) for one in addresses(pod.settings)}
    assert called | {"gateway"} <= names
    # What callers in other namespaces reach, see the policies.
    (namespace,) = {one["metadata"]["namespace"] for one in of_kind(overlay, "Service")}
    assert {f"router.{namespace}", f"gateway.{namespace}"} <= names
    # gRPC matches no wildcard of one word, such as *.shards-a.
    assert not any("*" in one for one in names)
    assert certificate["spec"]["ipAddresses"] == ["127.0.0.1"]
