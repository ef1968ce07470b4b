"""Decides whether network policies allow a connection, as Kubernetes does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Manifest = dict[str, Any]
Labels = Mapping[str, str]


class Peer(NamedTuple):
    """One end of a connection: a pod of the namespace or of another, or (no labels) an address.

    namespace: Labels of the namespace; None for the namespace of the policies.
    """

    labels: Labels | None
    namespace: Labels | None = None


def selects(selector: Manifest, labels: Labels) -> bool:
    """Returns whether a label selector selects these labels."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def allows(
    policies: Sequence[Manifest], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Returns whether a pod may connect to a port of another: both ends must allow it."""
    ends = (("Egress", source, target, "to"), ("Ingress", target, source, "from"))
    return all(
        _end_allows(policies, direction, pod, other, key, port, protocol)
        for direction, pod, other, key in ends
        # Policies are about pods of their namespace.
        if pod.labels is not None and pod.namespace is None
    )


def _end_allows(
    policies: Sequence[Manifest],
    direction: str,
    pod: Peer,
    other: Peer,
    key: str,
    port: int,
    protocol: str,
) -> bool:
    specs = [one["spec"] for one in policies if direction in one["spec"]["policyTypes"]]
    mine = [one for one in specs if selects(one["podSelector"], pod.labels or {})]
    return not mine or any(
        _is_peer(rule.get(key), other) and _has_port(rule.get("ports"), port, protocol)
        for spec in mine
        for rule in spec.get(direction.lower(), [])
    )


def _is_peer(peers: Sequence[Manifest] | None, other: Peer) -> bool:
    if peers is None:
        return True
    return any(
        "ipBlock" not in one
        and other.labels is not None
        and selects(one.get("podSelector", {}), other.labels)
        and (
            other.namespace is None
            if "namespaceSelector" not in one
            else selects(one["namespaceSelector"], other.namespace or {})
        )
        for one in peers
    )


def _has_port(ports: Sequence[Manifest] | None, port: int, protocol: str) -> bool:
    return ports is None or any((one["port"], one["protocol"]) == (port, protocol) for one in ports)
