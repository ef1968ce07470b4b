"""Drift ends in a promoted snapshot, or in a refusal; real processes, under load."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from benchmarks.app import app

pytestmark = [pytest.mark.service, pytest.mark.long]


@pytest.mark.timeout(400)
def test_drift_leads_to_a_promotion_after_a_trial_and_to_a_refusal_after_a_broken_feed() -> None:
    # Few requests per second: what is judged is the order of events.
    words = ["--searches", "120", "--trial", "5", "--trial-requests", "50"]
    result = CliRunner().invoke(app, ["upkeep", *words, "--json"])
    assert result.exit_code == 0, result.output
    promotion, refusal = map(json.loads, result.stdout.splitlines())
    assert promotion["failed"] == refusal["failed"] == 0
    assert 0 < promotion["on_trial_s"] < promotion["promoted_s"]
    assert promotion["promoted_s"] - promotion["on_trial_s"] >= 4
    assert promotion["gate_passed"]
    assert promotion["answered_by_the_new_one"] >= 50
    assert promotion["why"].startswith("drift of ")
    assert refusal["still_current"]
    assert refusal["answered_by_the_new_one"] == 0
    assert "overlap" in refusal["failed_checks"]
