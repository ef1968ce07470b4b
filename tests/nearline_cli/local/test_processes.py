"""Tests of child processes: start, failure, shutdown, and none left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nearline.errors import NotReady, SettingsError
from nearline_cli.local.processes import free_port, service_process, start_service
from nearline_cli.views.process_report import ProcessReport

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
pytestmark = pytest.mark.service

ECHO = "tests.nearline_cli.local.echo_service"
ROOT = Path(__file__).parents[3]


async def test_a_service_answers_on_its_port_and_is_gone_after_the_block() -> None:
    async with service_process(ECHO) as service:
        host, _, port = service.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5):
            assert psutil.pid_exists(service.pid)
    assert not psutil.pid_exists(service.pid)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)


async def test_two_services_may_share_a_port() -> None:
    arguments = ("--port", str(free_port()), "--reuse-port", "true")
    async with service_process(ECHO, arguments) as one, service_process(ECHO, arguments) as two:
        assert one.address == two.address
        assert one.pid != two.pid


async def test_all_threads_of_a_service_run_on_its_core() -> None:
    core = max(os.sched_getaffinity(0))
    async with service_process(ECHO, core=core) as service:
        threads = [one.id for one in psutil.Process(service.pid).threads()]
        assert all(os.sched_getaffinity(thread) == {core} for thread in threads)


async def test_a_nearline_error_keeps_its_text() -> None:
    with pytest.raises(NotReady, match="did not start: store /nowhere: no such folder; build one"):
        await start_service(ECHO, ("--fail", "error"))


async def test_a_refused_setting_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="nearest known one is fail"):
        await start_service(ECHO, ("--fial", "error"))


async def test_a_crash_shows_the_last_lines() -> None:
    with pytest.raises(
        NotReady, match=r"ended with code 1 (.*\n)+.*ZeroDivisionError: this is a test"
    ):
        await start_service(ECHO, ("--fail", "crash"))


async def test_a_silent_exit_names_the_exit_code() -> None:
    with pytest.raises(NotReady, match="ended with code 7 before it served"):
        await start_service(ECHO, ("--fail", "exit"))


async def test_a_service_that_never_serves_is_stopped_and_reported() -> None:
    before = _children()
    with pytest.raises(NotReady, match=r"did not serve within 4 s.*\n.*waiting for ever"):
        await start_service(ECHO, ("--fail", "hang"), ready_timeout_s=4)
    assert _children() == before


async def test_an_unknown_module_is_reported_with_the_message_of_python() -> None:
    with pytest.raises(NotReady, match="No module named nearline_nowhere"):
        await start_service("nearline_nowhere")


async def test_a_folder_of_the_same_name_in_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tests" / "nearline_cli" / "local"
    folder.mkdir(parents=True)
    (folder / "echo_service.py").write_text("raise SystemExit(9)")
    for package in (folder, *folder.parents[:2]):
        (package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    async with service_process(ECHO) as service:
        assert service.address


@pytest.mark.skipif(not _EPHEMERAL.exists(), reason="only Linux tells its ephemeral ports there")
def test_the_reason_of_a_failure_is_no_raw_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = ProcessReport(as_json=False, verbose=False)
    report.line("redis", '{"level": "critical", "event": "failed", "reason": "it is in use"}')
    report.line("redis", '{"level": "warning", "event": "slow"}')
    report.flush()
    assert capsys.readouterr().err == '[redis] {"level": "warning", "event": "slow"}\n'


def test_a_free_port_is_outside_the_range_of_outgoing_connections() -> None:
    lowest = int(_EPHEMERAL.read_text().split()[0])
    assert all(free_port() < lowest for _ in range(20))


def test_a_free_port_is_returned_once() -> None:
    assert len({free_port() for _ in range(1_000)}) == 1_000


@pytest.fixture
def supervisor() -> Iterator[subprocess.Popen[str]]:
    """Returns a process that supervises two echo services, ready, and ends what is left of it."""
    command = [
        sys.executable,
        "-m",
        "tests.nearline_cli.local.supervisor_process",
        str(free_port()),
        str(free_port()),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        _until(process, "ready")
        left = psutil.Process(process.pid).children(recursive=True)
        try:
            yield process
        finally:
            process.kill()
            psutil.wait_procs(left, timeout=20)


def test_a_killed_service_is_restarted_at_its_address(
    supervisor: subprocess.Popen[str],
) -> None:
    victim = psutil.Process(supervisor.pid).children()[0]
    victim.kill()
    died = _until(supervisor, "state")
    assert died["state"] == "died"
    assert died["reason"] == "killed by signal 9"
    assert died["retry_in_s"] == 0.5
    assert _until(supervisor, "state")["state"] == "starting"
    again = _until(supervisor, "state")
    assert (again["state"], again["address"]) == ("serving", died["address"])
    assert again["pid"] not in (0, victim.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_however_the_supervisor_ends(
    supervisor: subprocess.Popen[str], number: signal.Signals
) -> None:
    children = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(children) == 2
    os.kill(supervisor.pid, number)
    supervisor.wait(timeout=20)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def _until(process: subprocess.Popen[str], wanted: str) -> dict[str, object]:
    assert process.stdout is not None
    for line in process.stdout:
        record: dict[str, object] = json.loads(line)
        if record["event"] == wanted:
            return record
    raise AssertionError(f"the supervisor ended before it said {wanted!r}")


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}
