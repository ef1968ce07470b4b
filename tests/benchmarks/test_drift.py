"""Tests of `python -m benchmarks.drift`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import drift
from benchmarks.drift_parts.ratio_rounds import DriftSizes, measure_ratios
from benchmarks.drift_parts.ratios import RATIOS, Ratio, read_baseline, write_baseline
from nearline.errors import NotReady

_SMALL = DriftSizes(vectors=500, dim=16, items=1_000, users=1_000, rounds=1, seconds=0.2)


def measured(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    async def rounds(work: Path, sizes: DriftSizes, enough_s: float) -> dict[str, list[float]]:
        return {name: list(values) for name in RATIOS}

    monkeypatch.setattr(drift, "measure_ratios", rounds)


@pytest.mark.parametrize("words", [("--seconds", "0"), ("--seconds", "nan"), ("--enough", "-1")])
def test_a_duration_out_of_range_is_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        drift.main(words)
    assert ended.value.code == 2
    assert f"argument {words[0]}" in capsys.readouterr().err


def test_a_drift_is_printed_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ratios.json"
    write_baseline(path, {name: Ratio(0.9, 1.0, 1.1) for name in RATIOS}, {})
    measured(monkeypatch, 4.9, 5.0, 5.1)
    assert drift.main(["--baseline", str(path), "--json"]) == 0
    printed = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert printed["search_cpu_to_floor"]["change"] == 4.0
    assert printed["search_cpu_to_floor"]["remark"] == "worse"
    assert printed["search_to_floor"]["remark"] == "better"
    assert read_baseline(path)["search_to_floor"] == Ratio(0.9, 1.0, 1.1)


def test_a_missing_baseline_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(monkeypatch, 1.0)
    assert drift.main(["--baseline", str(tmp_path / "none.json")]) == 0
    assert "write one with --write" in capsys.readouterr().err


def test_a_new_baseline_replaces_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ratios.json"
    path.write_text("no JSON")
    measured(monkeypatch, 1.0, 3.0, 2.0)
    assert drift.main(["--baseline", str(path)]) == 1
    assert drift.main(["--baseline", str(path), "--write"]) == 0
    assert read_baseline(path) == {name: Ratio(1.0, 2.0, 3.0) for name in RATIOS}


def test_the_exit_status_is_1_if_nothing_could_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ended(work: Path, sizes: DriftSizes, enough_s: float) -> dict[str, list[float]]:
        raise NotReady("the minimal server ended at start")

    monkeypatch.setattr(drift, "measure_ratios", ended)
    assert drift.main(["--baseline", str(tmp_path / "none.json")]) == 1
    assert "ended at start" in capsys.readouterr().err


@pytest.mark.service
@pytest.mark.long
@pytest.mark.timeout(300)
async def test_every_ratio_is_measured(tmp_path: Path) -> None:
    ratios = await measure_ratios(tmp_path, _SMALL, 0.0)
    assert set(ratios) == set(RATIOS)
    assert all(len(values) == 1 and values[0] > 0 for values in ratios.values())
