"""Generates the reference page of all metrics."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from prometheus_client.metrics import MetricWrapperBase

# By section of the page: the modules that define metrics.
MODULES = {
    "Servers of gRPC": (
        *("nearline.calls.outcomes", "nearline.admission", "nearline.access.rate_limiter"),
        *("nearline.forwarder", "nearline.serving"),
    ),
    "Every process": (
        *("nearline.client_metrics", "nearline.loop_watchdog"),
        *("nearline.tracing.slow_requests", "nearline.tracing.span_exporter"),
    ),
    "Gateway": ("gateway.application",),
    "Router and shards": ("retrieval.protocols.metrics",),
    "Monitors of the router": ("retrieval.monitoring.metrics",),
    "Feed block: router and ingest": ("retrieval.writes.feed_block",),
    "Embedding": ("embedding.metrics",),
    "Generation": ("generation.protocols.metrics",),
    "Ingest and workers": ("index_builder.ingest.metrics",),
    "Upkeep": ("index_builder.pipeline.upkeep_metrics",),
}


def metrics_page(note: str) -> str:
    """Returns the page.

    Args:
        note: Comment that says that the page is generated.
    """
    lines = [
        *("# Metrics", "", note, ""),
        "Every process serves these at `/metrics` on its `metrics_port`; see",
        "[monitoring](../guides/monitoring.md). The labels `job`, `service`, `process` and",
        "`instance` come from Prometheus. A histogram `x` has the series `x_bucket`, `x_count` and",
        "`x_sum`. Python's own metrics (`process_cpu_seconds_total`,",
        "`process_resident_memory_bytes`, `process_open_fds` and others) are there, too.",
    ]
    for title, modules in MODULES.items():
        lines += ["", f"## {title}", ""]
        lines += ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
        for module in modules:
            for metric in defined_metrics(module):
                for family in metric.describe():
                    name = family.name + ("_total" if family.type == "counter" else "")
                    # The library has no public name for them.
                    labels = ", ".join(metric._labelnames)
                    meaning = family.documentation.replace("|", "\\|")
                    lines.append(f"| `{name}` | {family.type} | {labels} | {meaning} |")
    return "\n".join(lines) + "\n"


def defined_metrics(module: str) -> Iterator[MetricWrapperBase]:
    """Yields the metrics that a module defines."""
    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, MetricWrapperBase):
            yield value
