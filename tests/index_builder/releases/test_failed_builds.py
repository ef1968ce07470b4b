"""A build that failed is repeated later."""

from __future__ import annotations

import pytest

from index_builder.releases import failed_builds
from index_builder.releases.failed_builds import REBUILD_REFUSED_S, FailedBuilds

HOUR_S = 3600.0


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(failed_builds, "time", clock)
    return clock


def test_pauses_double_up_to_six_hours_and_end_with_another_snapshot(clock: _Clock) -> None:
    failed = FailedBuilds()
    assert not failed.pauses("shop", 7)
    for count in range(1, 12):
        assert failed.add("shop", 7, refused=False) == count
        pause_s = min(6 * HOUR_S, 300.0 * 2 ** (count - 1))
        assert not failed.pauses("shop", 8)
        clock.now_s += pause_s - 1
        assert failed.pauses("shop", 7)
        clock.now_s += 1
        assert not failed.pauses("shop", 7)
    assert failed.add("shop", 7, refused=True) == 12
    failed.forget("shop")
    assert not failed.pauses("shop", 7)
    assert failed.add("shop", 7, refused=True) == 1


@pytest.mark.parametrize(
    ("failed", "hours"), [(FailedBuilds(), 6), (FailedBuilds(REBUILD_REFUSED_S), 48)]
)
def test_a_refused_build_waits_for_hours_or_for_another_snapshot(
    failed: FailedBuilds, hours: int, clock: _Clock
) -> None:
    failed.add("shop", 7, refused=True)
    clock.now_s += hours * HOUR_S - 1
    assert failed.pauses("shop", 7)
    assert not failed.pauses("shop", 8) and not failed.pauses("other", 7)
    clock.now_s += 1
    assert not failed.pauses("shop", 7)
