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


def _hold(caplog: pytest.LogCaptureFixture, records: int) -> None:
    """Holds the loop until so many stalls are logged."""
    end_s = time.monotonic() + 10
    while len(caplog.records) < records and time.monotonic() < end_s:
        pass


async def _until_measured() -> None:
    before = _lags()
    while _lags() == before:
        await asyncio.sleep(0)


async def test_each_stall_is_logged_once_with_the_stack_of_what_holds_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "nearline.loop_watchdog"):
        async with LoopWatchdog(_STALL_S):
            _hold(caplog, 1)
            held_s = time.monotonic() + 4 * _STALL_S
            while time.monotonic() < held_s:
                pass
            assert len(caplog.records) == 1
            await _until_measured()
            _hold(caplog, 2)
    first, second = (vars(record) for record in caplog.records)
    assert "_hold(caplog, 1)" in first["stack"]
    assert "_hold(caplog, 2)" in second["stack"]
    assert first["held_s"] >= _STALL_S


async def test_a_loop_that_is_late_is_measured_and_one_that_is_not_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "nearline_server_loop_lag_seconds_sum"
    with caplog.at_level(logging.WARNING, "nearline.loop_watchdog"):
        async with LoopWatchdog():
            await _until_measured()
            before_s = REGISTRY.get_sample_value(name) or 0
            end_s = time.monotonic() + 0.3
            while time.monotonic() < end_s:
                pass
            await _until_measured()
    assert (REGISTRY.get_sample_value(name) or 0) - before_s >= 0.15
    assert not caplog.records
