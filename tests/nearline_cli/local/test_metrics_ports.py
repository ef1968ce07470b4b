"""Processes of `nearline up`: metrics on a port of its own for each, and no secret arguments."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from nearline.errors import SettingsError
from nearline.store.snapshot import Store
from nearline_cli.local.metrics_ports import MetricsOptions
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.processes import free_port
from nearline_cli.local.supervisor import ProcessSpec


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
        http_port=0,
        redis="redis://there/0",
        upkeep=True,
    )
    return replace(wanted, **more)  # type: ignore[arg-type]


def specs(plan: ProcessPlan) -> list[ProcessSpec]:
    assert plan.worker is not None
    return [*(spec for stage in plan.stages for spec in stage), plan.worker(1), plan.worker(2)]


def argument(spec: ProcessSpec, name: str) -> str:
    return spec.arguments[spec.arguments.index(name) + 1] if name in spec.arguments else ""


def ports(plan: ProcessPlan) -> dict[str, int]:
    return {spec.name: int(argument(spec, "--metrics-port")) for spec in specs(plan)}


def test_each_process_gets_the_next_free_port(tmp_path: Path) -> None:
    first = free_port()
    with plan_processes(layout(tmp_path, metrics=MetricsOptions(port=first))) as plan:
        found = ports(plan)
        assert len(set(found.values())) == len(found) == 1 + 4 + 2 + 1 + 1 + 1 + 1 + 2
        assert min(found.values()) >= first
        assert {name: one.port for name, one in plan.metrics.items()} == found
        # One that is planned again, since it died, keeps its port.
        assert plan.worker is not None and ports(plan) == found


@pytest.mark.parametrize("host", ["no such host", "300.1.1.1", "2001:db8::1"])
@pytest.mark.parametrize("port", [0, 9100])
def test_an_address_of_another_machine_is_refused_at_once(
    tmp_path: Path, host: str, port: int
) -> None:
    options = MetricsOptions(port=port, host=host)
    with (
        pytest.raises(SettingsError, match="name an address of this machine"),
        plan_processes(layout(tmp_path, metrics=options)),
    ):
        pass


def test_processes_have_metrics_by_default_and_none_is_reached_from_outside(
    tmp_path: Path,
) -> None:
    wanted = layout(tmp_path, host="0.0.0.0", metrics=MetricsOptions())
    with plan_processes(wanted) as plan:
        assert all(ports(plan).values())
        assert {argument(spec, "--metrics-host") for spec in specs(plan)} == {"127.0.0.1"}
        services = {one.service for one in plan.metrics.values()}
    assert services == {
        *("embedding", "shard", "router", "generation", "upkeep", "ingest", "gateway", "worker")
    }


def test_the_ports_follow_that_of_the_router(tmp_path: Path) -> None:
    router = free_port()
    with plan_processes(layout(tmp_path, port=router, metrics=MetricsOptions())) as plan:
        found = ports(plan)
    assert min(found.values()) >= router + 20
    assert max(found.values()) < router + 20 + 100


@pytest.mark.parametrize("variable", ["NEARLINE_METRICS_PORT", "NEARLINE_SHARD_METRICS_PORT"])
def test_the_port_in_the_settings_of_services_is_where_theirs_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(variable, str(port))
        with plan_processes(layout(tmp_path, metrics=MetricsOptions())) as plan:
            found = ports(plan)
    assert len(set(found.values())) == len(found)
    assert port not in found.values()
    assert all(0 < found[name] - port < 100 for name in found if name.startswith("shard-"))


def test_without_metrics_no_process_has_any_whatever_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_METRICS_PORT", "9464")
    monkeypatch.setenv("NEARLINE_SHARD_METRICS_PORT", "9465")
    with plan_processes(layout(tmp_path)) as plan:
        assert set(ports(plan).values()) == {0}
        assert plan.metrics == {}


def test_the_credentials_of_milvus_are_in_no_argument(tmp_path: Path) -> None:
    over_milvus = layout(tmp_path, milvus_uri="http://m:1", milvus_token="root:secret")
    with plan_processes(over_milvus) as plan:
        for spec in specs(plan):
            assert "secret" not in " ".join(spec.arguments)
        for router in plan.routers:
            assert argument(router, "--milvus-uri") == "http://m:1"
            assert router.environ["NEARLINE_RETRIEVAL_MILVUS_TOKEN"] == "root:secret"
