"""Tests of `nearline up` with real routers and shards: layouts, crashes, shutdown and refusals."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from nearline import Query, RetrievalClient, SearchOptions
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline_cli.local.process_plan import Layout, plan_processes, required_services
from nearline_cli.local.processes import free_port
from tests.nearline_cli.conftest import ROOT, Run, Up, command
from tests.scale import nightly

pytestmark = pytest.mark.service

Start = Callable[..., Up]


async def _nearest(address: str) -> tuple[list[str], int]:
    """Asks what is like document 7; of 31 equal scores the lowest ids win."""
    async with RetrievalClient(address) as client:
        reply = await client.search(
            Query(item_ids=("d07",)), SearchOptions(k=3, require_full_coverage=True)
        )
    return [hit.id for hit in reply.hits], reply.info.coverage.shards_answered


async def _nearest_or_none(address: str) -> tuple[list[str], int] | None:
    try:
        return await _nearest(address)
    except NotReady:
        return None


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["retrieval"]),
        pytest.param(
            ("--separate",), ["shard-0", "shard-1", "retrieval"], marks=nightly, id="separate"
        ),
        pytest.param(
            ("--shard-processes", "1"), ["shard-0", "retrieval"], marks=nightly, id="one process"
        ),
        (
            ("--shard-processes", "1", "--replicas", "2"),
            ["shard-0-replica-0", "shard-0-replica-1", "retrieval"],
        ),
        (("--workers", "2"), ["retrieval-0", "retrieval-1"]),
    ],
)
async def test_every_layout_gives_the_same_answer(
    up: Start, words: tuple[str, ...], names: list[str]
) -> None:
    running = up(*words)
    rows = [row for row in running.rows if row["event"] == "process"]
    assert [(row["name"], row["state"]) for row in rows] == [(name, "serving") for name in names]
    assert {row["pid"] for row in rows} == {child.pid for child in running.children}
    assert await _nearest(running.address) == (["d00", "d01", "d02"], 2)


def test_everything_is_asked_by_http_as_well_and_a_killed_gateway_comes_back(
    up: Start, nearline: Run
) -> None:
    running = up(http=True)
    address = str(running.rows[-1]["http"])
    body = {"query": {"vector": [1.0] + [0.0] * 31}, "options": {"k": 1}}
    path = f"{address}/v1/collections/default/search"

    def nearest() -> str:
        reply = httpx2.post(path, json=body, trust_env=False).raise_for_status().json()
        return str(reply["result"]["hits"][0]["id"])

    assert nearest() == "d00"
    none = ("--embedding", "", "--ingest", "", "--generation", "")
    http = ("--http", address.removeprefix("http://"))
    shown = nearline("status", "--address", running.address, *http, *none)
    assert re.search("^ *gateway .*serving", shown.stdout, re.M)
    assert f"HTTP: {address} (see " in shown.stderr
    assert f"gRPC: {running.address} (all services)" in shown.stderr
    running.named("gateway").kill()
    running.until("state", state="serving", name="gateway")
    assert nearest() == "d00"


async def test_a_killed_process_is_restarted_at_its_address(up: Start) -> None:
    running = up("--separate")
    for victim in ("shard-1", "retrieval"):
        before = running.named(victim)
        before.kill()
        assert running.until("state", state="died", name=victim)["reason"] == "killed by signal 9"
        again = running.until("state", state="serving", name=victim)
        assert again["pid"] != before.pid
    # The router connects again when its back-off lets it, within two seconds.
    async with asyncio.timeout(30):
        while (found := await _nearest_or_none(running.address)) is None:
            continue
    assert found == (["d00", "d01", "d02"], 2)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=nightly), signal.SIGKILL]
)
def test_no_process_is_left_however_it_ends(up: Start, number: signal.Signals) -> None:
    running = up("--separate")
    assert len(running.children) == 3
    running.process.send_signal(number)
    code = running.process.wait(timeout=30)
    assert code == (-9 if number is signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(running.children, timeout=30)
    assert alive == []


def test_it_ends_with_all_its_processes_when_nobody_reads_its_report(up: Start) -> None:
    running = up()
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.children[0].kill()
    assert running.process.wait(timeout=30) == 0
    _, alive = psutil.wait_procs(running.children, timeout=30)
    assert alive == []


async def test_a_full_disk_for_its_report_stops_nothing(store: Path) -> None:
    port = free_port()
    line = command("up", "--store", str(store), "--port", str(port), "--no-redis", "--no-http")
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(line, cwd=ROOT, stdout=full, stderr=full)
    try:
        async with asyncio.timeout(60):
            while (found := await _nearest_or_none(f"127.0.0.1:{port}")) is None:
                await asyncio.sleep(0.1)
        assert found[0] == ["d00", "d01", "d02"]
        process.send_signal(signal.SIGINT)
        # The router may serve before `up` knows.
        assert process.wait(timeout=30) in (0, 130)
    finally:
        process.kill()


def test_an_interrupt_before_everything_serves_is_a_failure(store: Path) -> None:
    line = command("up", "--store", str(store), "--port", "0", "--json", "--no-redis", "--no-http")
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "starting"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted before everything served" in errors


def test_a_port_in_use_names_the_port_the_process_and_the_remedy(
    nearline_process: Run, store: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = nearline_process("up", "--store", str(store), "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use by process " in done.stderr
    assert "choose another port with --port" in done.stderr


def test_a_shared_port_in_use_is_refused(nearline_process: Run, store: Path) -> None:
    with socket.socket() as taken:
        # Somebody who shares, as another `nearline up --workers` does.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = nearline_process("up", "--store", str(store), "--port", port, "--workers", "2")
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr


def test_an_empty_store_is_served_with_an_embedder_for_collections_to_come(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    shards, embedding = required_services(store)
    layout = Layout(
        store=store,
        shards=shards,
        port=0,
        embedding=embedding,
        embedding_port=0,
        shard_processes=1,
        redis="redis://r:1/0",
    )
    with plan_processes(layout) as processes:
        servers = [*processes.routers, *processes.shards]
        assert len(servers) == 2 and len(processes.embedding) == 1
    for server in servers:
        assert "--allow-empty true" in " ".join(server.arguments)


def test_a_damaged_snapshot_is_reported_before_anything_serves(
    nearline_process: Run, store: Path
) -> None:
    index = next(store.glob("default/snapshots/*/shards/001/dense.faiss"))
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    done = nearline_process("up", "--store", str(store), "--port", "0", "--no-redis", "--no-http")
    assert done.returncode == 1
    assert "retrieval did not start: " in done.stderr
    assert "the manifest says" in done.stderr


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--backend", "milvus"), "--backend milvus needs --milvus-uri"),
        (
            ("--backend", "milvus", "--milvus-uri", "http://127.0.0.1:1", "--replicas", "2"),
            "leave out --separate, --shard-processes and --replicas",
        ),
    ],
)
def test_milvus_needs_an_address_and_no_shards(
    nearline: Run, store: Path, words: tuple[str, ...], wanted: str
) -> None:
    done = nearline("up", "--store", str(store), "--port", "0", *words)
    assert done.returncode == 2
    assert wanted in done.stderr


def test_routers_pass_calls_on_to_the_services_beside_them(tmp_path: Path) -> None:
    layout = Layout(
        store=Store(tmp_path),
        shards=1,
        port=0,
        embedding_port=0,
        generation_port=0,
        redis="redis://r:1/0",
        ingest_port=0,
    )
    with plan_processes(layout) as processes:
        (router,) = processes.routers
    words = " ".join(router.arguments)
    for name in ("embedding", "generation", "ingest"):
        (behind,) = getattr(processes, name)
        assert f"--{name} {behind.address}" in words


def test_routers_get_the_milvus_address_and_its_token_in_the_environment(store: Path) -> None:
    layout = Layout(
        store=Store(store),
        shards=2,
        port=0,
        embedding=False,
        milvus_uri="http://127.0.0.1:1",
        milvus_token="a:secret",
    )
    with plan_processes(layout) as processes:
        (router,) = processes.routers
    words = " ".join(router.arguments)
    assert "--backend milvus --milvus-uri http://127.0.0.1:1" in words and "secret" not in words
    assert router.environ["NEARLINE_RETRIEVAL_MILVUS_TOKEN"] == "a:secret"
    assert processes.shards == ()
