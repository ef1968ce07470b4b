"""Services of a folder: shared, refused, ended and replaced; a small program stands for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nearline.clients import local_services
from nearline.clients.local_services import LIFELINE_VARIABLE, LocalServices
from nearline.errors import Conflict, NotReady, SettingsError, StoreError, Unsupported
from nearline.serving import LIFELINE_VARIABLE as SERVED_LIFELINE

READY = """
import json, os, select, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("not JSON")
print(json.dumps({"event": "ready", "address": "127.0.0.1:%d" % os.getpid()}), flush=True)
select.select([int(os.environ["NEARLINE_LIFELINE_FD"])], [], [])
print("the owner is gone", flush=True)
"""
REFUSED = """
print('{"error": "SETTINGS", "message": "--port is taken"}', flush=True)
"""


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    runs(monkeypatch, READY)
    yield monkeypatch
    assert not local_services._opened


def runs(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Makes this code run as the services."""
    line = [sys.executable, "-S", "-c", code]
    monkeypatch.setattr(local_services, "_command", lambda folder: line)


def test_they_are_shared_in_a_process_and_end_with_the_last_that_closes(tmp_path: Path) -> None:
    first = LocalServices.open(tmp_path / "new" / "folder", 10)
    second = LocalServices.open(tmp_path / "new" / ".." / "new" / "folder", 10)
    assert second is first
    first.close()
    assert first._process.poll() is None
    second.close()
    assert first._process.poll() == 0
    third = LocalServices.open(tmp_path / "new" / "folder", 10)
    assert third.address != first.address
    third.close()


def test_those_that_have_died_are_replaced(tmp_path: Path) -> None:
    first = LocalServices.open(tmp_path, 10)
    first._process.kill()
    first._process.wait()
    second = LocalServices.open(tmp_path, 10)
    assert second is not first and second._process.poll() is None
    first.close()
    assert second._process.poll() is None
    second.close()


def test_another_process_is_refused_with_the_address(tmp_path: Path) -> None:
    services = LocalServices.open(tmp_path, 10)
    code = "import sys; from pathlib import Path; from nearline.clients import local_services as s"
    code += "; s._locked(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    wanted = f"open in process {os.getpid()}; connect to it: Client('{services.address}')"
    assert wanted in done.stderr
    services.close()


def test_what_a_dead_owner_left_is_waited_for(tmp_path: Path, program: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    lock = local_services._locked(tmp_path)
    os.pwrite(lock, json.dumps([ended.pid, ""]).encode().ljust(100), 0)
    timer = threading.Timer(0.2, os.close, [lock])
    timer.start()
    LocalServices.open(tmp_path, 10).close()
    timer.join()
    # A file of another version says nothing of its owner.
    program.setattr(local_services, "_LEFTOVERS_S", 0.1)
    lock = local_services._locked(tmp_path)
    os.pwrite(lock, b"?" * 10, 0)
    with pytest.raises(Conflict, match="is open in another process; close it there"):
        local_services._locked(tmp_path)
    os.close(lock)


def test_they_end_when_their_owner_is_gone(tmp_path: Path) -> None:
    assert LIFELINE_VARIABLE == SERVED_LIFELINE
    services = LocalServices.open(tmp_path, 10)
    # What the system does for a process that dies.
    os.close(services._lifeline)
    assert services._process.wait(10) == 0
    services._lifeline = os.open(os.devnull, os.O_RDONLY)
    services.close()
    for thread in threading.enumerate():
        if thread.name == "nearline-services":
            thread.join(10)
    assert services._lines[-1] == "the owner is gone\n"


def test_credentials_for_services_elsewhere_are_not_theirs(
    tmp_path: Path, program: pytest.MonkeyPatch
) -> None:
    program.setenv("NEARLINE_TOKEN", "secret")
    program.setenv("NEARLINE_TLS_CA", "ca.pem")
    program.setenv("NEARLINE_GENERATION_SMALL", "qwen")
    runs(program, "import os; print(sorted(n for n in os.environ if n.startswith('NEARLINE')))")
    with pytest.raises(NotReady) as raised:
        LocalServices.open(tmp_path, 10)
    assert f"['NEARLINE_GENERATION_SMALL', '{LIFELINE_VARIABLE}']" in raised.value.message


def test_why_they_do_not_start_is_said(tmp_path: Path, program: pytest.MonkeyPatch) -> None:
    runs(program, REFUSED)
    with pytest.raises(SettingsError, match="did not start: --port is taken"):
        LocalServices.open(tmp_path, 10)
    runs(program, "import time; print('converting', flush=True); time.sleep(60)")
    with pytest.raises(NotReady, match=r"within 0.2 s; the first start may take minutes"):
        LocalServices.open(tmp_path, 0.2)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another folder"):
        LocalServices.open(tmp_path / "file", 10)
    program.undo()
    program.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"pip install 'nearline-server\[standard\]'"):
        LocalServices.open(tmp_path, 10)
    # Nothing of these holds the folder.
    os.close(local_services._locked(tmp_path))


FORKS = f"""
import os, pathlib, sys
from nearline.clients import local_services

local_services._command = lambda folder: [sys.executable, "-S", "-c", {READY!r}]
services = local_services.LocalServices.open(pathlib.Path(sys.argv[1]), 10)
if os.fork() == 0:
    sys.exit()
os.wait()
print("running" if services._process.poll() is None else "ended", flush=True)
if os.fork() == 0:
    os.close(1)
    os.read(0, 1)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_they_belong_to_the_process_that_opened_them_not_to_its_forks(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None and program.stdin is not None
    with program.stdin, program.stdout:
        assert program.stdout.readline() == "running\n"
        assert program.wait(20) == -9
        # The second fork still runs.
        LocalServices.open(tmp_path, 10).close()
