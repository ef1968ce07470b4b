"""Tests of counts in texts."""

from __future__ import annotations

from nearline.counts import counted


def test_one_is_singular() -> None:
    assert counted(1, "item") == "1 item"
    assert counted(0, "item") == "0 items"
    assert counted(2_345, "log entry", "log entries") == "2,345 log entries"
