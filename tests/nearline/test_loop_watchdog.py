"""What holds an event loop is measured, and named in the log while it lasts."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from prometheus_client import REGISTRY

from nearline.loop_watchdog import LoopWatchdog

_STALL_S = 0.05


def _lags() -> float:
    return REGISTRY.get_sample_value("nearline_server_loop_lag_seconds_count") or 0


async def _hold(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Holds the loop four times as long as a stall, until that is logged once under this name.

    On a busy machine, a stall may begin before, and is then logged with what ran there; others may
    follow. While the loop is held, there is only this one.
    """
    for _ in range(50):
        await _until_measured()
        before = len(_stalls(caplog, name))
        end_s = time.monotonic() + 4 * _STALL_S
        while time.monotonic() < end_s:
            pass
        if logged := len(_stalls(caplog, name)) - before:
            assert logged == 1
            return


def _stalls(caplog: pytest.LogCaptureFixture, name: str) -> list[float]:
    """Returns the seconds of the stalls whose stack holds a name; a busy machine adds others."""
    return [
        vars(record)["held_s"] for record in caplog.records if f'"{name}"' in vars(record)["stack"]
    ]


async def _until_measured() -> None:
    before = _lags()
    while _lags() == before:
        await asyncio.sleep(0)


async def test_each_stall_is_logged_once_with_the_stack_of_what_holds_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "nearline.loop_watchdog"):
        async with LoopWatchdog(_STALL_S):
            await _hold(caplog, "first")
            await _hold(caplog, "second")
    for name in ("first", "second"):
        found = _stalls(caplog, name)
        assert found and min(found) >= _STALL_S


async def test_a_loop_that_is_late_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    name = "nearline_server_loop_lag_seconds_sum"
    with caplog.at_level(logging.WARNING, "nearline.loop_watchdog"):
        async with LoopWatchdog(stall_s=60):
            await _until_measured()
            before_s = REGISTRY.get_sample_value(name) or 0
            end_s = time.monotonic() + 0.3
            while time.monotonic() < end_s:
                pass
            await _until_measured()
    assert (REGISTRY.get_sample_value(name) or 0) - before_s >= 0.15
    assert not caplog.records
