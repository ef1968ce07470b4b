"""Prometheus finds the processes of `nearline up` by a file; each serves metrics of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nearline_cli.local.metrics_ports import MetricsEndpoint
from nearline_cli.local.metrics_targets import MetricsTargets
from nearline_cli.local.processes import service_process
from nearline_cli.local.supervisor import ProcessState, StateChange
from tests.nearline_cli.conftest import Up


def change(name: str, state: ProcessState) -> StateChange:
    return StateChange(name=name, address="127.0.0.1:1", pid=1, state=state)


def targets(file: Path) -> dict[str, tuple[str, str]]:
    """Returns the service and the address of each process in a file."""
    found = {}
    for group in json.loads(file.read_text("utf-8")):
        (address,) = group["targets"]
        assert group["labels"]["job"] == "nearline"
        found[group["labels"]["process"]] = group["labels"]["service"], address
    return found


def test_a_process_is_listed_from_its_first_answer_until_it_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "metrics" / "7700.json"
    endpoints = {"retrieval": MetricsEndpoint(81, "router")}
    kept = MetricsTargets(file, "127.0.0.1", endpoints, pytest.fail)
    kept.change(change("retrieval", ProcessState.STARTING))
    kept.change(change("redis", ProcessState.SERVING))
    assert not file.exists()
    kept.change(change("retrieval", ProcessState.SERVING))
    assert targets(file) == {"retrieval": ("router", "127.0.0.1:81")}
    # A worker that the queue needs comes later.
    endpoints["worker-1"] = MetricsEndpoint(82, "worker")
    kept.change(change("worker-1", ProcessState.SERVING))
    both = {"retrieval": ("router", "127.0.0.1:81"), "worker-1": ("worker", "127.0.0.1:82")}
    assert targets(file) == both
    kept.change(change("worker-1", ProcessState.DIED))
    assert targets(file) == both
    kept.change(change("worker-1", ProcessState.STOPPED))
    assert set(targets(file)) == {"retrieval"}
    kept.remove()
    assert list(file.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file")
    said: list[str] = []
    endpoints = {"retrieval": MetricsEndpoint(81, "router")}
    kept = MetricsTargets(tmp_path / "metrics" / "1.json", "127.0.0.1", endpoints, said.append)
    kept.change(change("retrieval", ProcessState.SERVING))
    kept.change(change("retrieval", ProcessState.STOPPED))
    assert len(said) == 1 and "--metrics-port off" in said[0]
    assert kept.file is None


def test_a_file_that_could_not_be_finished_is_removed(tmp_path: Path) -> None:
    said: list[str] = []
    endpoints = {"retrieval": MetricsEndpoint(81, "router")}
    file = tmp_path / "1.json"
    kept = MetricsTargets(file, "127.0.0.1", endpoints, said.append)
    file.mkdir()
    kept.change(change("retrieval", ProcessState.SERVING))
    assert len(said) == 1 and "start again" in said[0]
    assert list(tmp_path.iterdir()) == [file]


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        return str(reply.read().decode())


def listening(process: psutil.Process) -> set[int]:
    connections = process.net_connections("tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


@pytest.mark.service
def test_every_process_is_listed_and_has_metrics_of_its_own(
    up: Callable[..., Up], store: Path
) -> None:
    running = up("--separate", "--workers", "2", redis=True, http=True)
    file = Path(str(running.rows[-1]["metrics_targets"]))
    assert file.parent == store / ".metrics"
    names = {str(row["name"]) for row in running.rows if row["event"] == "process"} - {"redis"}
    found = targets(file)
    assert set(found) == names
    assert {"retrieval-0", "retrieval-1", "shard-0", "gateway", "ingest", "upkeep"} <= names
    for name, (_, address) in found.items():
        assert "nearline_" in scrape(address)
        assert int(address.rpartition(":")[2]) in listening(running.named(name))
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=30) == 0
    assert not file.exists()


@pytest.mark.service
def test_metrics_can_be_switched_off(up: Callable[..., Up], store: Path) -> None:
    running = up("--metrics-port", "off")
    assert "metrics_targets" not in running.rows[-1]
    assert not (store / ".metrics").exists()
    ports = set().union(*map(listening, running.children))
    assert ports == {int(running.address.rpartition(":")[2])}


@pytest.mark.service
async def test_the_variable_of_containers_does_not_reach_processes_of_commands(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_METRICS_PORT", "9464")
    words = ("--store", str(store))
    # Two of them would both take that port.
    async with service_process("retrieval", words), service_process("retrieval", words):
        await asyncio.sleep(0)
