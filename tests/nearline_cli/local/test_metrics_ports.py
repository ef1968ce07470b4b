"""Each process of `nearline up` has metrics on a port of its own."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from nearline.store.snapshot import Store
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.processes import free_port


def layout(folder: Path, **more: object) -> Layout:
    wanted = Layout(
        store=Store(folder),
        shards=2,
        shard_processes=2,
        replicas=2,
        workers=2,
        port=0,
        embedding_port=0,
        generation_port=0,
        ingest_port=0,
        redis="redis://there/0",
        upkeep=True,
    )
    return replace(wanted, **more)  # type: ignore[arg-type]


def ports(plan: ProcessPlan) -> dict[str, int]:
    assert plan.worker is not None
    specs = [*(spec for stage in plan.stages for spec in stage), plan.worker(1), plan.worker(2)]
    return {
        spec.name: int(spec.arguments[spec.arguments.index("--metrics-port") + 1])
        for spec in specs
        if "--metrics-port" in spec.arguments
    }


def test_each_process_gets_the_next_free_port(tmp_path: Path) -> None:
    first = free_port()
    with plan_processes(layout(tmp_path, metrics_port=first)) as plan:
        found = ports(plan)
        assert len(set(found.values())) == len(found) == 1 + 4 + 2 + 1 + 1 + 1 + 2
        assert min(found.values()) >= first
        assert plan.metrics == found
        # One that is planned again, since it died, keeps its port.
        assert plan.worker is not None and ports(plan) == found


def test_the_port_in_the_settings_of_a_service_is_shared_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("NEARLINE_SHARD_METRICS_PORT", str(port))
        with plan_processes(layout(tmp_path)) as plan:
            found = ports(plan)
    assert len(set(found.values())) == len(found) == 4
    assert all(name.startswith("shard-") for name in found)
    assert port not in found.values()


def test_without_a_port_nothing_has_metrics(tmp_path: Path) -> None:
    with plan_processes(layout(tmp_path)) as plan:
        assert (ports(plan), plan.metrics) == ({}, {})
