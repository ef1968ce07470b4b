"""Containers as processes: isolation, probes, restarts and stops, with small programs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.fleet import sandbox
from benchmarks.fleet.container_process import Folders, RunningContainer
from benchmarks.fleet.containers import Check, Container, ExecCheck, Mount, Probe, TcpCheck
from benchmarks.fleet.network import Addresses, write_hosts
from benchmarks.fleet.volumes import fleet_folders, owned_folder
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


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = fleet_folders(tmp_path / "fleet")
    write_hosts(made.hosts, [("127.9.8.7", "peer")])
    return made


def often(check: Check, failures: int = 3) -> Probe:
    return Probe(
        check=check, interval_s=0.1, start_interval_s=0.1, timeout_s=5.0, failures=failures
    )


def server(stays_s: float = 0.0, **fields: object) -> Container:
    words = ("python", "-I", "-S", "-c", SERVER, "0.0.0.0", str(stays_s))
    ready = often(TcpCheck(7000))
    return Container(name="one", words=words, ready=ready, **fields)  # type: ignore[arg-type]


async def output(container: Container, folders: Folders) -> tuple[int, str]:
    running = RunningContainer(container, Addresses().take(), folders)
    running.start()
    code = await running.wait()
    return code, running.log.read_text("utf-8")


async def test_a_container_has_its_files_user_names_and_volumes_and_no_others(
    folders: Folders, tmp_path: Path
) -> None:
    volume = owned_folder(tmp_path / "fleet" / "volumes" / "one", USER)
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
    code, text = await output(container, folders)
    first = text.splitlines()[0].split()
    assert first[0] == "1" and first[3:] == ["127.9.8.7", "peer"]
    # A wildcard stands for the container's own address.
    assert first[2].startswith("127.") and first[2].endswith(":7")
    assert text.count("Read-only file system") == 2
    assert (volume / "written").exists() and not Path("/usr/written").exists()
    assert code in (0, 2)


async def test_a_probe_decides_whether_it_is_ready_and_a_killed_one_comes_back(
    folders: Folders,
) -> None:
    running = RunningContainer(server(), Addresses().take(), folders)
    running.start()
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
    folders: Folders,
) -> None:
    running = RunningContainer(server(stays_s=60, grace_s=1.0), Addresses().take(), folders)
    running.start()
    await running.wait_ready(30)
    stop = await running.stop()
    assert stop.killed and stop.code == -9 and 1.0 <= stop.seconds < 10.0
    assert running.pid is None


async def test_a_hook_runs_before_the_signal_and_within_the_grace_period(folders: Folders) -> None:
    hooked = server(pre_stop=("sleep", "0.7"), grace_s=20.0)
    running = RunningContainer(hooked, Addresses().take(), folders)
    running.start()
    await running.wait_ready(30)
    stop = await running.stop()
    assert not stop.killed and stop.code == 0 and stop.seconds >= 0.7


async def test_a_failed_check_of_life_restarts_the_container(folders: Folders) -> None:
    alive = often(ExecCheck(("test", "!", "-e", "/state/ill")), failures=2)
    state = owned_folder(folders.roots.parent / "volumes" / "state", "")
    container = server(alive=alive, grace_s=0.5, mounts={"/state": Mount(state)})
    running = RunningContainer(container, Addresses().take(), folders)
    running.start()
    try:
        await running.wait_ready(30)
        (state / "ill").touch()
        await until(lambda: running.restarts, timeout_s=30)
        (state / "ill").unlink()
        await running.wait_ready(30)
    finally:
        await running.stop()


async def test_nothing_of_a_container_is_left_when_its_runner_is_killed(folders: Folders) -> None:
    container = Container(name="one", words=("sleep", "600"), user=USER)
    words = sandbox.command(container, container.words, folders.roots / "one", folders.hosts)
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
