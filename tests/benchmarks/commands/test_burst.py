"""Tests of `nearline bench burst`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.workloads.burst_load import BurstLoad
from tests.nearline_cli.conftest import ROOT, command
from tests.redis_server import needs_redis
from tests.scale import nightly


def test_documents_are_due_at_the_rate_of_their_time() -> None:
    load = BurstLoad(rate=10.0, factor=5.0, steady_s=4.0, burst_s=2.0, after_s=3.0)
    assert load.seconds == 9.0
    due = {0.0: 0, 1.0: 10, 4.0: 40, 5.0: 90, 6.0: 140, 8.0: 160, 9.0: 170, 50.0: 170}
    assert {at: load.due(at) for at in due} == due


@nightly
@pytest.mark.service
@needs_redis
def test_a_burst_starts_workers_loses_nothing_and_scales_to_zero(tmp_path: Path) -> None:
    words = "--rate 20 --steady 3 --burst 4 --after 3 --target 2 --idle 3 --max-workers 3"
    done = subprocess.run(
        command("bench", "burst", *words.split(), "--json"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    # 20 a second for 10 s, and four times as many again for 4 s.
    assert row["submitted"] == row["indexed"] == 520
    assert (row["lost"], row["dead"]) == (0, 0)
    assert 2 <= row["max_workers_seen"] <= 3
    assert row["lag_zero_after_s"] is not None
    assert row["scaled_to_zero"] and row["zero_workers_after_s"] > 0
    first, *_, last = row["scalings"]
    assert (first["from"], last["to"]) == (0, 0)
    timeline = row["timeline"]
    assert row["lag_max"] == max(one["lag"] for one in timeline) > 0
    for name in ("t", "submitted", "done"):
        assert timeline == sorted(timeline, key=lambda one: float(one[name]))
    assert (timeline[-1]["done"], timeline[-1]["lag"], timeline[-1]["workers"]) == (520, 0, 0)
