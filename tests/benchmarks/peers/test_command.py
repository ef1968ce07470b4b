"""Tests of what `python -m benchmarks.peers` says without measuring."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.peers.command import main
from benchmarks.peers.systems.registry import OURS, SYSTEMS


def test_list_names_each_system_and_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(SYSTEMS["redis"], missing=lambda: "apt: redis-server")
    monkeypatch.setitem(SYSTEMS, "redis", absent)
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SYSTEMS)
    assert "apt: redis-server" in printed


def test_an_unknown_system_is_refused_with_the_names_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--systems", f"{OURS},sqlite"]) == 1
    said = capsys.readouterr().err
    assert "--systems names sqlite" in said
    assert "pgvector" in said


def test_systems_that_cannot_be_measured_are_left_out_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "redis", replace(SYSTEMS["redis"], missing=lambda: "apt: it"))
    assert main(["--systems", "redis,faiss", "--filtered"]) == 1
    said = capsys.readouterr().err
    assert "redis is left out: it needs apt: it" in said
    assert "faiss is left out: it has no filters" in said
    assert "nothing is left to measure" in said


@pytest.mark.parametrize("arguments", [["--recall", "1.5"], ["--seconds", "0"], ["--width", "-1"]])
def test_numbers_out_of_range_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
