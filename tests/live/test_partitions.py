"""Peers that do not answer, or whose packets vanish: calls end in time, and replies are honest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.live.cut_network import obstacle
from tests.live.partition_run import CASES, CUT, DEADLINE_S
from tests.redis_server import needs_redis
from tests.scale import NIGHTLY, nightly

pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis, pytest.mark.timeout(300)]
# Callers give up at their deadline; a busy machine may be late to run them.
MARGIN_S = 0.5
# TCP repeats a lost packet after a pause that doubles each time.
RECOVERY_S = 20.0
# A shard is silent after two requests for its status, each of a second.
AWAY_S = 10.0
QUICK = ("shard half-open", "shard partitioned", "redis half-open", "embedding partitioned")
# By what is cut off, calls that cannot be answered. The item whose attributes are written is of the
# shard that is cut off.
REFUSED = {
    "shard": {"write attributes"},
    "redis": {"write", "write attributes", "record"},
    "embedding": {"write"},
}
# Calls that ask every shard. A list may come from a cache.
OF_EVERY_SHARD = {"search", "text search", "items", "count"}
Row = Mapping[str, Any]


@pytest.fixture(name="rows", scope="module")
def give_rows() -> dict[str, Row]:
    """Returns what callers saw, by case."""
    if why := obstacle():
        pytest.skip(why)
    words = ["--shards", "4", "--seconds", "8", *CASES] if NIGHTLY else ["--seconds", "0", *QUICK]
    command = [sys.executable, "-m", "tests.live.partition_run", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4_000:]
    return {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}


def cases(part: str = "") -> list[Any]:
    """Returns the cases, of one part or of all; some run in nightly runs only."""
    found = [one for one in CASES if one.startswith(part)]
    return [one if one in QUICK else pytest.param(one, marks=nightly) for one in found]


@pytest.mark.parametrize("case", cases())
def test_calls_end_in_time_and_everything_comes_back(rows: dict[str, Row], case: str) -> None:
    assert rows[case]["recovered_s"] <= RECOVERY_S
    for kind, seen in rows[case]["kinds"].items():
        assert seen["longest_s"] <= DEADLINE_S + MARGIN_S, kind


@pytest.mark.parametrize("case", cases())
def test_replies_say_what_is_missing(rows: dict[str, Row], case: str) -> None:
    part = case.split()[0]
    for kind, seen in rows[case]["kinds"].items():
        assert seen["false"] == 0, kind
        if kind in OF_EVERY_SHARD - REFUSED[part]:
            assert seen["missing"] == ([CUT] if part == "shard" else []), kind


@pytest.mark.parametrize("case", cases())
def test_what_cannot_be_had_is_refused_with_a_typed_error(rows: dict[str, Row], case: str) -> None:
    part = case.split()[0]
    for kind, seen in rows[case]["kinds"].items():
        if kind in REFUSED[part]:
            assert seen["answered"] == 0, kind
            assert set(seen["errors"]) <= {"DeadlineExceeded", "NotReady"}, kind
        else:
            assert seen["answered"] > 0, kind
            # The others are waited for nearly as long as the caller waits.
            late = {"DeadlineExceeded"} if part == "shard" else set()
            assert set(seen["errors"]) <= late, kind


@pytest.mark.parametrize("case", cases("redis"))
def test_a_list_without_redis_says_that_the_user_is_not_known(
    rows: dict[str, Row], case: str
) -> None:
    reasons = rows[case]["kinds"]["list"]["fallbacks"]
    assert reasons
    assert all(one.startswith("no_user_state: Redis does not answer") for one in reasons)


@pytest.mark.parametrize("case", cases("embedding"))
def test_texts_without_an_embedder_are_searched_by_words(rows: dict[str, Row], case: str) -> None:
    reasons = rows[case]["kinds"]["text search"]["fallbacks"]
    assert reasons
    assert all(one.startswith("lexical: searched by words alone") for one in reasons)


@pytest.mark.parametrize("case", cases("shard"))
def test_a_silent_shard_is_soon_asked_no_more(rows: dict[str, Row], case: str) -> None:
    assert 0 < rows[case]["away_s"] <= AWAY_S
    assert all(seen["last_s"] <= DEADLINE_S / 2 for seen in rows[case]["kinds"].values())
