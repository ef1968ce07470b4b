"""Tests of `nearline ask --folder`: from files to a cited answer, with nothing running before."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import psutil
import pytest

from nearline import Query, RetrievalClient
from nearline.errors import Unauthenticated
from nearline.tls import TlsFiles
from tests.nearline_cli.conftest import ROOT, command
from tests.small_disk import small_disk

pytestmark = [pytest.mark.service, pytest.mark.long, pytest.mark.timeout(900)]

QUESTION = "how long is a gift card valid"
_LIMIT_S = 300.0


class Folder:
    """A folder of documents, and the commands that ask it.

    path: The folder. cache: The cache of all folders.
    """

    def __init__(self, path: Path, cache: Path) -> None:
        self.path, self.cache = path, cache

    def line(self, *words: str) -> list[str]:
        return command("ask", *words, "--folder", str(self.path))

    def ask(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        line = self.line(*(words or (QUESTION,)))
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT_S)
        assert done.returncode == code, done.stderr
        return done

    @property
    def index(self) -> Path:
        (found,) = (self.cache / "folders").iterdir()
        return found

    def record(self) -> dict[str, str]:
        record: dict[str, str] = json.loads((self.index / "keeper.json").read_text())
        return record

    def processes(self) -> list[psutil.Process]:
        """Returns the keeper, its services, and what else works on the cache."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.cache) in word for word in process.cmdline()):
                    found.append(process)
        return found


def until(holds: Callable[[], object]) -> None:
    """Waits until something holds."""
    end = time.monotonic() + _LIMIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(name="folder")
def give_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Returns a folder of documents; its index is in a cache of this test."""
    monkeypatch.setenv("NEARLINE_CACHE_DIR", str(tmp_path / "cache"))
    # The converted model is taken from where other tests have it.
    monkeypatch.setenv("NEARLINE_EMBEDDING_CACHE_DIR", platformdirs.user_cache_dir("nearline"))
    path = tmp_path / "documents"
    path.mkdir()
    (path / "gift-cards.md").write_text(
        "# Gift cards\n\nA gift card is valid for three years from the day it was bought. It "
        "cannot be exchanged for money.\n"
    )
    (path / "returns.txt").write_text("Shoes may be sent back within thirty days, unworn.\n")
    folder = Folder(path, tmp_path / "cache")
    yield folder
    left = folder.processes()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    assert psutil.wait_procs(left, timeout=30)[1] == []


async def test_the_next_question_finds_the_services_and_every_change_of_a_file(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a deployment elsewhere: nothing of it concerns services of this machine alone.
    monkeypatch.setenv("NEARLINE_TLS_CA", "/nowhere/ca.pem")
    monkeypatch.setenv("NEARLINE_TOKEN", "nl_elsewhere")
    (folder.path / "broken.pdf").write_bytes(b"no pdf")
    first = folder.ask()
    assert "valid for three years" in first.stdout and "[1] gift-cards.md " in first.stdout
    assert "2 documents of 3 files" in first.stderr and "broken.pdf" in first.stderr
    record = folder.record()

    again = folder.ask()
    assert "valid for three years" in again.stdout and again.stderr == ""
    assert folder.record() == record

    (folder.path / "gift-cards.md").write_text("# Gift cards\n\nA gift card is valid for a week.\n")
    (folder.path / "worse.pdf").write_bytes(b"no pdf either")
    changed = folder.ask()
    assert "valid for a week" in changed.stdout and "starting the services" not in changed.stderr
    assert "worse.pdf" in changed.stderr and "broken.pdf" not in changed.stderr

    (folder.path / "old").mkdir()
    (folder.path / "gift-cards.md").rename(folder.path / "old" / "cards.md")
    assert "[1] old/cards.md " in folder.ask().stdout

    (folder.path / "old" / "cards.md").unlink()
    assert "old/cards.md" not in folder.ask("--always", QUESTION).stdout
    events = [json.loads(line) for line in folder.ask("--json", QUESTION).stdout.splitlines()]
    assert {"evidence"} <= {event["event"] for event in events}
    assert folder.record() == record

    # Nobody else reads the index, or asks its services.
    assert stat.S_IMODE(folder.index.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.index / "keeper.json").stat().st_mode) == 0o600
    async with RetrievalClient(record["retrieval"], token="", tls=TlsFiles()) as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.search(Query(text=QUESTION))

    shutil.rmtree(folder.path)
    assert "is not a folder" in folder.ask(code=2).stderr


def test_a_keeper_is_replaced_once_it_was_killed_or_has_other_settings_and_ends_when_told(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [folder.line(QUESTION)] * 2
    asks = [subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) for line in lines]
    for ask in asks:
        assert "valid for three years" in ask.communicate(timeout=_LIMIT_S)[0]
    keepers = [
        one for one in folder.processes() if "nearline_cli.local.keeper_process" in one.cmdline()
    ]
    assert [one.pid for one in keepers] == [int(folder.record()["pid"])]

    killed = folder.processes()
    os.kill(int(folder.record()["pid"]), signal.SIGKILL)
    assert psutil.wait_procs(killed, timeout=60)[1] == []
    second = folder.ask()
    assert "starting the services" in second.stderr and "reusing snapshot" in second.stderr

    before = folder.processes()
    monkeypatch.setenv("NEARLINE_GENERATION_LOG_LEVEL", "warning")
    assert "starting the services" in folder.ask().stderr
    assert not any(one.is_running() for one in before)

    before = folder.processes()
    assert json.loads(folder.ask("--stop", "--json").stdout) == {"stopped": True}
    assert psutil.wait_procs(before, timeout=30)[1] == []
    assert "there are no services" in folder.ask("--stop").stdout
    assert (folder.index / "keeper.json").read_text() == ""


def test_services_that_start_for_a_killed_command_are_used_by_the_next_and_can_be_ended(
    folder: Folder,
) -> None:
    def killed_while_they_start() -> list[psutil.Process]:
        with subprocess.Popen(folder.line(QUESTION), cwd=ROOT, stderr=subprocess.PIPE) as process:
            until(lambda: any("embedding" in one.cmdline() for one in folder.processes()))
            process.kill()
        return folder.processes()

    begun = killed_while_they_start()
    assert "three years" in folder.ask().stdout
    assert folder.record()["pid"] in [one.pid for one in begun]
    folder.ask("--stop")
    begun = killed_while_they_start()
    assert json.loads(folder.ask("--stop", "--json").stdout) == {"stopped": True}
    assert psutil.wait_procs(begun, timeout=10)[1] == []


def test_a_build_whose_keeper_was_killed_ends_with_the_remedy(folder: Folder) -> None:
    folder.ask()
    for number in range(300):
        (folder.path / f"{number}.md").write_text(f"# Note {number}\n\nLamp {number} is here.\n")
    with subprocess.Popen(
        folder.line(QUESTION), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        until(lambda: list(folder.index.glob("default/.build/*")))
        os.kill(int(folder.record()["pid"]), signal.SIGKILL)
        begun = time.monotonic()
        assert "a service of the folder ended; ask again" in process.stderr.read()
        assert process.wait() == 1 and time.monotonic() - begun < 20
    assert "three years" in folder.ask().stdout


def test_a_keeper_ends_when_idle_or_without_its_cache(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_KEEPER_IDLE_S", "0")
    folder.ask()
    until(lambda: not folder.processes())
    assert (folder.index / "keeper.json").read_text() == ""
    monkeypatch.delenv("NEARLINE_KEEPER_IDLE_S")
    folder.ask()
    assert folder.processes()
    shutil.rmtree(folder.index)
    until(lambda: not folder.processes())


def test_an_interrupt_of_the_first_question_leaves_no_process(folder: Folder) -> None:
    line = folder.line(QUESTION)
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert "starting the services" in next(lines)
        until(lambda: any("embedding" in one.cmdline() for one in folder.processes()))
        begun = folder.processes()
        process.send_signal(signal.SIGINT)
        rest = "".join(lines)
        assert process.wait(timeout=60) == 130
    assert "Traceback" not in rest
    assert begun and psutil.wait_procs(begun, timeout=30)[1] == []


def test_a_watched_folder_is_kept_in_step_until_ctrl_c(folder: Folder) -> None:
    line = folder.line("--watch", "--json")
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["event"], first["changes"], first["documents"]) == ("update", "2 new", 2)
        (folder.path / "more.md").write_text("# Parking\n\nParking costs four euros an hour.\n")
        (folder.path / "returns.txt").unlink()
        second = json.loads(process.stdout.readline())
        assert (second["changes"], second["documents"]) == ("1 new, 1 gone", 2)
        answer = folder.ask("how much does parking cost per hour?")
        assert "four euros" in answer.stdout and answer.stderr == ""
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_a_full_disk_costs_an_update_and_nothing_else(folder: Folder) -> None:
    folder.cache.mkdir()
    with small_disk(folder.cache, 64) as disk:
        if disk is None:
            pytest.skip("this user may not mount a disk")
        assert "three years" in folder.ask().stdout
        with disk.full():
            assert "three years" in folder.ask().stdout
            (folder.path / "new.md").write_text("# Parking\n\nParking costs four euros an hour.\n")
            assert "is full" in folder.ask(code=1).stderr
        assert "four euros" in folder.ask("how much does parking cost per hour?").stdout
        folder.ask("--stop")
