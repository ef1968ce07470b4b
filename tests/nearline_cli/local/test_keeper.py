"""Tests of how a keeper is found: by the lock that it holds, whatever its record says."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from nearline.errors import NotReady, SettingsError, StoreError
from nearline_cli.local import keeper
from nearline_cli.local.keeper import Keeper

KEEPER = Keeper(os.getpid(), keeper.settings_digest(), "e:1", "r:2", "g:3", "nl_key")


@contextmanager
def held(path: Path) -> Iterator[None]:
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(cache: Path, text: str) -> None:
    (cache / keeper.RECORD).write_text(text)


async def test_a_record_counts_only_while_its_keeper_lives(tmp_path: Path) -> None:
    assert keeper.find_keeper(tmp_path / "gone") is None
    write(tmp_path, json.dumps(KEEPER._asdict()))
    # After a kill or a reboot, whatever process has that pid now.
    assert keeper.find_keeper(tmp_path) is None
    assert not await keeper.stop_keeper(tmp_path)
    with held(tmp_path / keeper.RECORD):
        assert keeper.find_keeper(tmp_path) == await keeper.settled_keeper(tmp_path) == KEEPER
        # One that starts or ends is not ready, but alive.
        for damage in ("", "[]", '{"pid":', '{"port": 1}'):
            write(tmp_path, damage)
            assert keeper.find_keeper(tmp_path) == Keeper()
    assert await keeper.settled_keeper(tmp_path) is None


async def test_a_keeper_that_starts_or_ends_is_waited_for(tmp_path: Path) -> None:
    for left in (KEEPER, None):
        write(tmp_path, json.dumps(Keeper(os.getpid())._asdict()))
        with held(tmp_path / keeper.RECORD):
            found = asyncio.create_task(keeper.settled_keeper(tmp_path))
            await asyncio.sleep(0.2)
            assert not found.done()
            if left:
                write(tmp_path, json.dumps(left._asdict()))
                assert await found == left
        assert await found == left


async def test_a_keeper_that_ends_is_given_time_and_only_one_signal(tmp_path: Path) -> None:
    program = (
        "import fcntl, os, signal, sys, time; f = open(sys.argv[1], 'r+'); "
        "fcntl.flock(f, fcntl.LOCK_EX); got = []; "
        "signal.signal(signal.SIGTERM, lambda *_: got.append(1)); "
        "f.write('{\"pid\": %d}' % os.getpid()); f.flush()\n"
        "while not got: time.sleep(0.01)\n"
        "os.truncate(f.fileno(), 0); time.sleep(0.5); sys.exit(len(got))"
    )
    write(tmp_path, "")
    path = str(tmp_path / keeper.RECORD)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, path)
    while not (tmp_path / keeper.RECORD).read_text():
        await asyncio.sleep(0.01)
    assert await keeper.stop_keeper(tmp_path)
    assert keeper.find_keeper(tmp_path) is None
    assert await process.wait() == 1


def test_a_keeper_in_use_is_not_idle(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(KEEPER._asdict()))
    with keeper.used(tmp_path), keeper.used(tmp_path):
        assert not keeper.retire(tmp_path)
        assert (tmp_path / keeper.RECORD).read_text()
    assert keeper.retire(tmp_path)
    assert not (tmp_path / keeper.RECORD).read_text()


async def test_a_lock_is_waited_for_until_it_is_released(tmp_path: Path) -> None:
    order: list[int] = []

    async def work(number: int) -> None:
        async with keeper.locked(tmp_path / "lock"):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(work(1), work(2))
    assert order in ([1, 1, 2, 2], [2, 2, 1, 1])


def test_a_keeper_has_the_settings_of_the_command_but_no_secrets_of_other_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = keeper.settings_digest()
    monkeypatch.setenv("NEARLINE_TOKEN", "nl_elsewhere")
    monkeypatch.setenv("NEARLINE_LIFELINE_FD", "7")
    assert keeper.settings_digest() == first
    monkeypatch.setenv("NEARLINE_EMBEDDING_MODEL", "another")
    assert keeper.settings_digest() != first


async def test_a_keeper_that_ends_at_once_is_an_error_that_names_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(NotReady, match=f"ended with code 1; .* damaged, remove {tmp_path} to"):
        await keeper.start_keeper(tmp_path, lambda note: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(StoreError, match=f"the disk of {tmp_path} is full .*NEARLINE_CACHE_DIR"):
        await keeper.start_keeper(tmp_path, lambda note: None)


@pytest.mark.service
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NEARLINE_NONSENSE", "1", "unknown variable NEARLINE_NONSENSE.*has the log"),
        ("NEARLINE_KEEPER_IDLE_S", "soon", "NEARLINE_KEEPER_IDLE_S is 'soon'; set it to seconds"),
        ("NEARLINE_KEEPER_IDLE_S", "nan", "NEARLINE_KEEPER_IDLE_S is 'nan'; set it to seconds"),
    ],
)
async def test_the_reason_of_a_start_that_fails_is_raised(
    name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    notes: list[str] = []
    with pytest.raises(SettingsError, match=said):
        await keeper.start_keeper(tmp_path, notes.append)
    assert len(notes) == 1 and "starting the services" in notes[0]
    assert name in (tmp_path / keeper.LOG).read_text()
    assert keeper.find_keeper(tmp_path) is None
