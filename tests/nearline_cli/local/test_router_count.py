"""Tests of the default number of routers."""

from __future__ import annotations

import os

import pytest

from nearline_cli.local.router_count import default_router_count, router_core


@pytest.mark.parametrize(
    ("cores", "routers"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (8, 4), (64, 4)]
)
def test_there_is_a_router_for_every_two_cores_up_to_four(
    monkeypatch: pytest.MonkeyPatch, cores: int, routers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert default_router_count(shares_state=True) == routers
    assert default_router_count(shares_state=False) == 1


@pytest.mark.parametrize(
    ("cores", "routers", "chosen"),
    [
        ([2, 5], 2, [2, 5]),
        ([2, 5], 3, [2, 5, 2]),
        ([0], 2, [0, 0]),
        # One router may use all cores, and several the ones that are left.
        ([0], 1, [None]),
        ([0, 1, 2], 2, [None, None]),
    ],
)
def test_routers_have_a_core_each_if_there_is_none_to_spare(
    monkeypatch: pytest.MonkeyPatch, cores: list[int], routers: int, chosen: list[int | None]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(cores))
    assert [router_core(number, routers) for number in range(routers)] == chosen
