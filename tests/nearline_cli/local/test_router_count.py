"""Tests of the default number of routers."""

from __future__ import annotations

import os

import pytest

from nearline_cli.local.router_count import default_router_count


@pytest.mark.parametrize(
    ("cores", "routers"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (8, 4), (64, 4)]
)
def test_there_is_a_router_for_every_two_cores_up_to_four(
    monkeypatch: pytest.MonkeyPatch, cores: int, routers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert default_router_count(shares_state=True) == routers
    assert default_router_count(shares_state=False) == 1
