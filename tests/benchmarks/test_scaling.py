"""Tests of `python -m benchmarks.scaling`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling_parts.measured_rows import MeasuredRows
from tests.benchmarks.scaling_parts.made_up_rows import list_rows, redis_row, search_rows
from tests.scale import nightly


def test_rows_of_a_former_run_are_fitted_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    measured = MeasuredRows(out)
    rows = [*search_rows(), *list_rows((100_000, 1_000_000)), redis_row(1_000), redis_row(3_000)]
    for row in rows:
        measured.add(row)
    assert scaling.main(["--fit-only", "--out", str(out), "--json", "--plan-users", "2M"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one for one in printed if one["kind"] in ("searches", "lists", "redis")] == rows
    fits = {one["figure"]: one for one in printed if one["kind"] == "fit"}
    assert fits["search: router us"]["formula"] == "400 + 20 shards"
    plan = {one["figure"]: one for one in printed if one["kind"] == "plan"}
    assert plan["Redis, states of users"]["value"] == pytest.approx(2e6 * 500)


@pytest.mark.parametrize("words", [(), ("--out", "/none/rows.jsonl")])
def test_a_fit_needs_a_file(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--fit-only", *words]) == 1
    assert "name a file of an earlier run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--sizes", "many"),
        ("--sizes", "0"),
        ("--sizes", "1G"),
        ("--users", "999"),
        ("--recall", "2"),
        ("--plan-busy", "7"),
    ],
)
def test_an_amount_out_of_range_is_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        scaling.main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_what_does_not_fit_the_minutes_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--only", "redis", "--redis-users", "1M", "--minutes", "1"]) == 0
    assert "1,000,000 users in Redis: left out" in capsys.readouterr().err


@nightly
@pytest.mark.service
@pytest.mark.timeout(600)
def test_a_quick_run_measures_every_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--quick", "--sizes", "1k", "2k", "--shards", "1", "2", "--json"]
    assert scaling.main([*words, "--out", str(tmp_path / "rows.jsonl")]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [one["kind"] for one in printed]
    assert (kinds.count("searches"), kinds.count("lists"), kinds.count("redis")) == (8, 8, 2)
    assert all(one["recall"] >= 0.9 for one in printed if one["kind"] == "searches")
