"""Tests of the supervisor: its messages about processes that die, and restarts of frozen ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nearline.retry import Backoff
from nearline_cli.local import disk, liveness, supervisor
from nearline_cli.local.processes import free_port
from nearline_cli.local.supervisor import (
    ProcessSpec,
    ProcessState,
    StateChange,
    SupervisedProcess,
)
from nearline_cli.views.process_report import ProcessReport
from tests.nearline_cli.local.supervisor_process import plan
from tests.redis_server import needs_redis, valkey
from tests.scale import nightly

SERVING, DIED = ProcessState.SERVING, ProcessState.DIED


def dying(folder: Path | None = None) -> ProcessSpec:
    port = free_port()
    return ProcessSpec(
        name="redis",
        module="tests.nearline_cli.local.dying_redis",
        arguments=("--port", str(port)),
        address=f"127.0.0.1:{port}",
        ready_services=(),
        folder=folder,
    )


@contextlib.asynccontextmanager
async def kept(
    spec: ProcessSpec, frozen_s: float = 60.0, steady_s: float = 60.0
) -> AsyncIterator[asyncio.Queue[StateChange]]:
    """Supervises a process; yields its changes of state."""
    changes: asyncio.Queue[StateChange] = asyncio.Queue()
    process = SupervisedProcess(spec, changes.put_nowait, frozen_s=frozen_s, steady_s=steady_s)
    task = asyncio.create_task(process.keep())
    try:
        yield changes
    finally:
        task.cancel()
        await asyncio.wait([task])
        await process.stop()


async def until(changes: asyncio.Queue[StateChange], state: ProcessState) -> StateChange:
    async with asyncio.timeout(30):
        while True:
            change = await changes.get()
            if change.state is state:
                return change


@pytest.mark.service
async def test_a_redis_that_ends_is_quoted_and_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(dying(tmp_path)) as changes:
        died = await until(changes, DIED)
        assert died.reason == (
            "ended with code 1: Error writing to the AOF file: No space left on device; Can't "
            "recover from AOF write error when the AOF fsync policy is 'always'. Exiting..."
        )
        monkeypatch.setattr(disk, "LOW_BYTES", 1 << 62)
        died = await until(changes, DIED)
        assert f"; the disk of {tmp_path} is full: " in died.reason
        assert "Remove files" in died.reason


@pytest.mark.service
async def test_a_crash_loop_is_not_reported_as_serving_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF", Backoff(0.01, 0.01))
    report = ProcessReport(as_json=False, verbose=False)
    async with kept(dying()) as changes:
        deaths = 0
        while deaths < 4:
            change = await changes.get()
            deaths = change.deaths
            report.change(change)
    report.flush()
    said = capsys.readouterr().err
    assert said.count("redis ended with code 1") == 4
    assert said.count("serving again") == 1
    assert "(death 4 in a row)" in said


@pytest.mark.service
async def test_a_process_that_recovers_from_a_crash_loop_is_reported_once_it_is_steady(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF", Backoff(0.01, 0.01))
    report = ProcessReport(as_json=False, verbose=False)
    async with kept(plan("echo", free_port()), steady_s=1.5) as changes:
        for _ in range(2):
            os.kill((await until(changes, SERVING)).pid, signal.SIGKILL)
            report.change(await until(changes, DIED))
        first = await until(changes, SERVING)
        report.change(first)
        report.flush()
        assert (first.deaths, "serving again" in capsys.readouterr().err) == (2, False)
        steady = await until(changes, SERVING)
        report.change(steady)
        report.flush()
        assert (steady.deaths, steady.pid) == (0, first.pid)
        assert "echo is serving again" in capsys.readouterr().err


@pytest.mark.service
@pytest.mark.parametrize("shared_port", [pytest.param(False, marks=nightly), True])
async def test_a_frozen_process_is_killed_and_restarted(shared_port: bool) -> None:
    spec = replace(plan("echo", free_port()), shared_port=shared_port)
    async with kept(spec, frozen_s=2.0) as changes:
        pid = (await until(changes, SERVING)).pid
        os.kill(pid, signal.SIGSTOP)
        died = await until(changes, DIED)
        assert died.reason == "did not answer for 2 s, and was killed"
        again = await until(changes, SERVING)
        assert (again.address, again.pid != pid) == (spec.address, True)


async def test_a_process_that_answers_now_and_then_is_not_frozen() -> None:
    answers = iter([True, False, False, True, False, False, True])
    asked = 0

    async def probe() -> bool:
        nonlocal asked
        asked += 1
        return next(answers, False)

    async with asyncio.timeout(20):
        await liveness.wait_until_frozen(probe, frozen_s=0.2)
    assert asked > 7


@pytest.mark.service
@needs_redis
async def test_redis_and_servers_that_do_not_listen_do_not_answer() -> None:
    async with valkey() as url:
        address = url.removeprefix("redis://").partition("/")[0]
        assert await liveness.answers_redis(address)
    assert not await liveness.answers_redis(address)
    assert not await liveness.answers_health(f"127.0.0.1:{free_port()}", timeout_s=1.0)


async def test_a_certificate_that_is_being_replaced_does_not_make_a_process_look_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half.pem"
    half.write_text("-----BEGIN")
    monkeypatch.setenv("NEARLINE_TLS_CA", str(half))
    assert await liveness.answers_health("127.0.0.1:1")


def test_the_disk_of_a_folder_that_is_missing_is_that_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "a" / "b"
    assert disk.free_bytes(missing) is not None
    monkeypatch.setattr(disk, "free_bytes", lambda folder: disk.LOW_BYTES)
    assert disk.disk_problem(missing) == ""
    monkeypatch.setattr(disk, "free_bytes", lambda folder: disk.LOW_BYTES - 1)
    assert disk.disk_problem(missing).startswith(f"the disk of {missing} is full: 64.0 MiB")
    monkeypatch.setattr(disk, "free_bytes", lambda folder: None)
    assert disk.disk_problem(missing) == ""
