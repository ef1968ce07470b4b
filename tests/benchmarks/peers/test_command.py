"""Tests of what `python -m benchmarks.peers` prints without measuring."""

from __future__ import annotations

import pytest

from benchmarks.peers.__main__ import choose, main
from benchmarks.peers.systems import SYSTEMS


def test_an_unknown_system_is_refused_with_the_names_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--systems", "redis,sqlite"]) == 1
    said = capsys.readouterr().err
    assert "--systems names sqlite" in said
    assert all(name in said for name in SYSTEMS)


def test_systems_that_cannot_be_measured_are_left_out_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SYSTEMS["redis"], "program", "no-such-program", raising=False)
    assert choose("redis,floor", filtered=True) == [SYSTEMS["nearline"]]
    said = capsys.readouterr().err
    assert "redis is left out: it needs apt: redis-server" in said
    assert "floor is left out: it has no filters" in said
