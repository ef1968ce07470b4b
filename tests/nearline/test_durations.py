"""Tests of durations as people write them."""

from __future__ import annotations

import pytest

from nearline.durations import Duration, parse_duration
from nearline.errors import InvalidRequest


def test_durations_are_parsed() -> None:
    times = {"90": 90, "90s": 90, "1.5m": 90, "24h": 86_400, " 7d ": 604_800, "0": 0, "500ms": 0.5}
    assert {text: parse_duration(text, "--ttl") for text in times} == times
    for text in ("", "soon", "-1s", "1w", "1h30m", "1e3", "٣s", "9" * 400):
        with pytest.raises(InvalidRequest, match="write 500ms, 10s, 15m, 24h or 7d") as caught:
            parse_duration(text, "--result-ttl")
        assert caught.value.field == "result_ttl"


def test_a_duration_is_shown_as_people_write_it() -> None:
    shown = {0: "0s", 0.25: "250ms", 10: "10s", 90: "90s", 120: "2m", 7200: "2h", 172800: "2d"}
    assert {seconds: str(Duration(seconds)) for seconds in shown} == shown
