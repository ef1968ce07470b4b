"""The labels of metrics, as Prometheus reads them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families


def label_values(port: int = 0) -> set[str]:
    """Returns each value of each label of Nearline's metrics.

    Args:
        port: Prometheus endpoint of a process on this machine; 0 reads this process.
    """
    if port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            text = reply.read().decode()
    else:
        text = generate_latest(REGISTRY).decode()
    return {
        value
        for family in text_string_to_metric_families(text)
        if family.name.startswith("nearline_")
        for sample in family.samples
        for value in sample.labels.values()
    }


def naming(values: Iterable[str], marks: Iterable[str]) -> set[str]:
    """Returns the values that contain one of the marks."""
    return {value for value in values if any(mark in value for mark in marks)}
