"""Containers as processes: isolation, probes, restarts and stops, with small programs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.fleet import sandbox
from benchmarks.fleet.container_process import RunningContainer
from benchmarks.fleet.containers import Check, Container, Mount, Probe
from benchmarks.fleet.fleet import Fleet
from tests.waits import until

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(bool(sandbox.why_not()), reason=sandbox.why_not() or "-"),
]
USER = "10001:10001"
SLEEP = b"sleep\000600\0"
# Listens on its first argument, and stays for the second one's seconds after SIGTERM.
SERVER = """
import signal, socket, sys, time
server = socket.create_server((sys.argv[1], 7000))
def stop(*_):
    time.sleep(float(sys.argv[2]))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while True:
    server.accept()
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000))"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path / "fleet")
    made.write_hosts([("127.9.8.7", "peer")])
    return made


def often(check: Check, failures: int = 3) -> Probe:
    return Probe(
        check=check, interval_s=0.1, start_interval_s=0.1, timeout_s=5.0, failures=failures
    )


def server(stays_s: float = 0.0, **fields: object) -> Container:
    words = ("python", "-I", "-S", "-c", SERVER, "0.0.0.0", str(stays_s))
    ready = often(Check(("python", "-I", "-S", "-c", CONNECT, "0.0.0.0")))
    return Container(name="one", words=words, ready=ready, **fields)  # type: ignore[arg-type]


def run(container: Container, fleet: Fleet) -> RunningContainer:
    running = RunningContainer(container, fleet.take_address(), fleet.folders)
    running.start()
    return running


async def test_a_container_has_its_files_user_names_and_volumes_and_no_others(
    fleet: Fleet,
) -> None:
    volume = fleet.volume("one", USER)
    script = (
        'echo "$$ $(id -u) $WORD $(grep peer /etc/hosts)"; touch /store/written /tmp/written; '
        "touch /usr/written || touch /store-ro/written || ls /root /home"
    )
    mounts = {"/store": Mount(volume), "/store-ro": Mount(volume, True)}
    container = Container(
        name="one",
        words=("sh", "-c", script),
        environ={"WORD": "0.0.0.0:7"},
        mounts=mounts,
        tmpfs=("/tmp",),
        user=USER,
        restarts=False,
    )
    running = run(container, fleet)
    code = await running.wait()
    text = running.log.read_text("utf-8")
    first = text.splitlines()[0].split()
    assert first[0] == "1" and first[3:] == ["127.9.8.7", "peer"]
    # A wildcard stands for the container's own address.
    assert first[2].startswith("127.") and first[2].endswith(":7")
    assert text.count("Read-only file system") == 2
    assert (volume / "written").exists() and not Path("/usr/written").exists()
    assert code in (0, 2)


async def test_an_interpreter_below_a_folder_that_the_container_has_of_its_own_is_found(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "venv" / "bin"
    own.mkdir(parents=True)
    (own / "python").write_text("#!/bin/sh\necho found")
    (own / "python").chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(own.parent))
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    top = Path("/", *tmp_path.parts[1:2])
    mounts = {str(top): Mount(fleet.volume("tmp"))}
    running = run(Container(name="one", words=("python",), mounts=mounts, restarts=False), fleet)
    assert await running.wait() == 0
    assert running.log.read_text("utf-8") == "found\n"


async def test_a_probe_decides_whether_it_is_ready_and_a_killed_one_comes_back(
    fleet: Fleet,
) -> None:
    running = run(server(), fleet)
    try:
        await running.wait_ready(30)
        before = running.pid
        running.kill()
        await until(lambda: not running.ready)
        await running.wait_ready(30)
        assert running.pid != before and running.restarts == 1
    finally:
        stop = await running.stop()
    assert (stop.code, stop.killed) == (0, False)


async def test_a_container_that_outstays_its_grace_period_is_killed_and_reported(
    fleet: Fleet,
) -> None:
    running = run(server(stays_s=60, grace_s=1.0), fleet)
    await running.wait_ready(30)
    stop = await running.stop()
    assert stop.killed and stop.code == -9 and 1.0 <= stop.seconds < 10.0
    assert running.pid is None


async def test_a_hook_runs_before_the_signal_and_within_the_grace_period(fleet: Fleet) -> None:
    hooked = server(pre_stop=("sleep", "0.7"), grace_s=20.0)
    running = run(hooked, fleet)
    await running.wait_ready(30)
    stop = await running.stop()
    assert not stop.killed and stop.code == 0 and stop.seconds >= 0.7


async def test_a_failed_check_of_life_restarts_the_container(fleet: Fleet) -> None:
    alive = often(Check(("test", "!", "-e", "/state/ill")), failures=2)
    state = fleet.volume("state")
    container = server(alive=alive, grace_s=0.5, mounts={"/state": Mount(state)})
    running = run(container, fleet)
    try:
        await running.wait_ready(30)
        (state / "ill").touch()
        await until(lambda: running.restarts, timeout_s=30)
        (state / "ill").unlink()
        await running.wait_ready(30)
    finally:
        await running.stop()


async def test_nothing_of_a_container_is_left_when_its_runner_is_killed(fleet: Fleet) -> None:
    container = Container(name="one", words=("sleep", "600"), user=USER)
    words = sandbox.command(
        container, container.words, fleet.folders.roots / "one", fleet.folders.hosts
    )
    # Its parent is a shell, which is killed as a runner may be.
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", '"$@" & echo $!; wait', "sh", *words, stdout=asyncio.subprocess.PIPE
    )
    assert shell.stdout is not None
    starter = int(await shell.stdout.readline())
    async with asyncio.timeout(30):
        while not (first := sandbox.first_process(starter)) or command_of(first) != SLEEP:
            await asyncio.sleep(0.01)
        shell.kill()
        await shell.wait()
        while command_of(first) == SLEEP:
            await asyncio.sleep(0.01)


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
