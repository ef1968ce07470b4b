"""Holds on a change log: renewed by a build, ended with it, and short-lived after a kill."""

from __future__ import annotations

import asyncio
import logging

import pytest

from nearline.errors import StoreError
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.changelog import holds
from retrieval.changelog.holds import held_log, held_watermarks
from retrieval.protocols.watermark import Watermark
from tests.nearline.store.conftest import files, s3, s3_endpoint  # noqa: F401  fixtures

LOG = "0123456789abcdef" * 2
EARLY = Watermark(LOG, (1,) * PARTITIONS)
LATE = Watermark(LOG, (2,) * PARTITIONS)


class _Clock:
    """Seconds since 1970, for the module."""

    def __init__(self) -> None:
        self.now = 1.8e9

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(holds, "time", found)
    return found


@pytest.fixture
def store(files: object) -> Store:  # noqa: F811
    return Store(files)  # type: ignore[arg-type]


def _positions(store: Store) -> list[int]:
    return sorted(one.positions[0] for one in held_watermarks(store, "c"))


async def test_a_hold_lasts_as_long_as_its_build(store: Store) -> None:
    async with held_log(store, "c", EARLY):
        async with held_log(store, "c", LATE):
            assert _positions(store) == [1, 2]
        assert _positions(store) == [1]
    assert store.files.names("c/holds") == []


async def test_a_hold_ends_with_a_build_that_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with held_log(store, "c", EARLY):
            raise ZeroDivisionError
    assert store.files.names("c/holds") == []


@pytest.mark.parametrize(("after_s", "held"), [(1_800, [1]), (1_801, []), (-1_801, [])])
async def test_the_hold_of_a_killed_build_expires_and_the_next_build_removes_it(
    store: Store, clock: _Clock, after_s: int, held: list[int]
) -> None:
    holds._renew(store, "c", EARLY, "aaaaaaaa")
    clock.now += after_s
    assert _positions(store) == held
    async with held_log(store, "c", LATE):
        assert _positions(store) == [*held, 2]
        assert len(store.files.names("c/holds")) == len(held) + 1


async def test_a_renewal_replaces_the_hold(store: Store, clock: _Clock) -> None:
    for _ in range(20):
        holds._renew(store, "c", EARLY, "aaaaaaaa")
        assert store.files.names("c/holds") == [f"{int(clock.now)}-aaaaaaaa"]
        clock.now += 300
    assert _positions(store) == [1]


async def test_a_hold_counts_until_its_renewal_even_if_one_renewal_fails(
    store: Store, clock: _Clock
) -> None:
    assert 2 * holds._RENEW_S < holds._EXPIRE_S
    holds._renew(store, "c", EARLY, "aaaaaaaa")
    for renewals in (1, 2, 1, 2):
        clock.now += renewals * holds._RENEW_S
        assert _positions(store) == [1]
        holds._renew(store, "c", EARLY, "aaaaaaaa")


async def test_a_hold_is_renewed_until_its_build_ends_also_after_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    renewed = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    real, calls = holds._renew, 0

    def renew(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        loop.call_soon_threadsafe(renewed.release)
        if calls == 2:
            raise StoreError("the disk is away")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(holds, "_renew", renew)
    monkeypatch.setattr(holds, "_RENEW_S", 0.01)
    with caplog.at_level(logging.WARNING):
        async with held_log(store, "c", EARLY):
            for _ in range(4):
                await asyncio.wait_for(renewed.acquire(), 10)
            assert _positions(store) == [1]
    assert [one.message for one in caplog.records] == ["hold on a change log not renewed"]


def test_files_that_are_no_holds_are_left_out(store: Store, clock: _Clock) -> None:
    now = int(clock.now)
    store.files.create(f"c/holds/{now}-bbbbbbbb", b"no watermark")
    store.files.create("c/holds/notes.txt", b"")
    assert held_watermarks(store, "c") == []
