"""Tests of how a keeper is found: by the lock that it holds, whatever its record says."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nearline.errors import SettingsError
from nearline_cli.local import keeper
from nearline_cli.local.keeper import Keeper

KEEPER = Keeper(os.getpid(), "e:1", "r:2", "g:3", "nl_key", keeper.settings_digest())


@contextmanager
def held(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(cache: Path, text: str) -> None:
    (cache / keeper.RECORD).write_text(text)


async def test_a_record_counts_only_while_its_keeper_lives(tmp_path: Path) -> None:
    assert keeper.find_keeper(tmp_path / "gone") is None
    write(tmp_path, json.dumps(KEEPER._asdict()))
    # After a kill or a reboot, whatever process has that pid now.
    assert keeper.find_keeper(tmp_path) is None
    with held(tmp_path / keeper.ALIVE):
        assert keeper.find_keeper(tmp_path) == KEEPER
        for damage in ("", "[]", "{}", '{"pid": 1}'):
            write(tmp_path, damage)
            assert keeper.find_keeper(tmp_path) is None
    assert not await keeper.stop_keeper(tmp_path)


def test_a_keeper_in_use_is_not_idle(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(KEEPER._asdict()))
    with keeper.used(tmp_path), keeper.used(tmp_path):
        assert not keeper.is_unused(tmp_path)
        assert (tmp_path / keeper.RECORD).exists()
    assert keeper.is_unused(tmp_path)
    assert not (tmp_path / keeper.RECORD).exists()


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


@pytest.mark.service
async def test_the_reason_of_a_start_that_fails_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_NONSENSE", "1")
    notes: list[str] = []
    with pytest.raises(SettingsError, match=r"unknown variable NEARLINE_NONSENSE.*has the log"):
        await keeper.start_keeper(tmp_path, notes.append)
    assert not any("unknown" in note for note in notes)
    assert "unknown variable" in (tmp_path / keeper.LOG).read_text()
    assert not (tmp_path / keeper.RECORD).exists()
