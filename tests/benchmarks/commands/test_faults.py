"""Tests of a short `nearline bench faults`."""

from __future__ import annotations

import json

import pytest

from tests.nearline_cli.conftest import Run
from tests.scale import nightly

pytestmark = pytest.mark.service


@nightly
def test_searches_survive_killed_and_stopped_replicas(nearline: Run) -> None:
    done = nearline("bench", "faults", "--json", "--rate", "40", "--seconds", "2", "--timeout", "3")
    assert done.returncode == 0, done.stderr
    rows = {row["phase"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert [row["requests"] for row in rows.values()] == [80] * 6
    assert [row["failed"] for row in rows.values()] == [0] * 6
    assert all(row["p99_ms"] < row["deadline_ms"] for row in rows.values())
    lowest = {name: row["min_coverage"] for name, row in rows.items()}
    assert lowest.pop("both replicas killed") == 0.5
    assert lowest.pop("both back") == 0.5
    assert set(lowest.values()) == {1.0}
    assert rows["both replicas killed"]["full_coverage_refused"] is True
    assert 0 <= rows["both back"]["recovered_s"] < 10
