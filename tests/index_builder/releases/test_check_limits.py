"""Every check of the gate passes what is just inside its limit, and refuses what is just outside.

Each check sees a made-up comparison whose measured value is known, so nothing is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest

from index_builder.releases import checks_behaviour
from index_builder.releases.comparison import Comparison
from index_builder.releases.gate import _CHECKS
from index_builder.releases.gate_report import Check, CheckOutcome, SkippedCheck
from index_builder.releases.thresholds import GateLimits
from tests.index_builder.releases.made_up_comparisons import (
    OURS,
    THEIRS,
    Made,
    Patch,
    compare,
    held_out,
    lists_of,
    of_held_out,
    of_latency,
    of_missing,
    of_moved,
    of_ndcg,
    of_overlap,
    of_popular,
    of_promised_recall,
    of_recall,
    of_recommend,
    of_small_latency,
    of_swapped,
    of_turned,
    pair,
    replayed,
    timed,
    trained,
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A check with its limit: made(patch, value) gives a comparison with that measured value."""

    check: str
    made: Callable[[Patch, float], dict[str, Any]]
    inside: float
    outside: float
    limits: Mapping[str, float] = field(default_factory=dict)
    measured: bool = True

    @property
    def label(self) -> str:
        changed = "-".join(f"{name}={value:g}" for name, value in self.limits.items())
        return f"{self.check}-{self.inside:g}-{self.outside:g}-{changed or 'default'}"


TABLE = [
    Limit(check="recall", made=of_recall, inside=0.95, outside=0.9499),
    Limit(check="recall", made=of_recall, inside=0.5, outside=0.4999, limits={"min_recall": 0.5}),
    # A manifest that promises 1.0 demands it less a slack of 0.05, whatever the limit.
    Limit(
        check="recall",
        made=of_promised_recall,
        inside=0.95,
        outside=0.9499,
        limits={"min_recall": 0.5},
    ),
    Limit(
        check="recall",
        made=of_promised_recall,
        inside=0.975,
        outside=0.9749,
        limits={"min_recall": 0.975},
    ),
    Limit(check="overlap", made=of_overlap, inside=0.5, outside=0.4999),
    Limit(
        check="overlap", made=of_overlap, inside=0.75, outside=0.7499, limits={"min_overlap": 0.75}
    ),
    Limit(check="ndcg", made=of_ndcg(0.75), inside=0.73, outside=0.7299),
    Limit(
        check="ndcg", made=of_ndcg(0.75), inside=0.5, outside=0.4999, limits={"max_ndcg_loss": 0.25}
    ),
    Limit(check="ndcg", made=of_ndcg(0.75), inside=0.74, outside=0.7399, limits={"min_ndcg": 0.74}),
    Limit(check="ndcg", made=of_ndcg(None), inside=0.25, outside=0.2499, limits={"min_ndcg": 0.25}),
    # The loss against the live snapshot is switched off.
    Limit(
        check="ndcg",
        made=of_ndcg(0.75),
        inside=0.25,
        outside=0.2499,
        limits={"min_ndcg": 0.25, "max_ndcg_loss": -1.0},
    ),
    Limit(check="missing", made=of_missing, inside=0.02, outside=0.021),
    Limit(
        check="missing", made=of_missing, inside=0.25, outside=0.251, limits={"max_missing": 0.25}
    ),
    Limit(check="moved", made=of_moved, inside=0.01, outside=0.011),
    Limit(check="moved", made=of_moved, inside=0.25, outside=0.251, limits={"max_moved": 0.25}),
    Limit(check="moved", made=of_swapped, inside=0.01, outside=0.011),
    # All documents have another vector if their cosine is too low.
    *(
        Limit(check="moved", made=of_turned(factory), inside=one, outside=other, measured=False)
        for factory, one, other in (("Flat", 0.9901, 0.9899), ("IVF64,PQ16", 0.6001, 0.5999))
    ),
    Limit(check="latency", made=of_latency, inside=1.5, outside=1.5001),
    Limit(
        check="latency",
        made=of_latency,
        inside=1.25,
        outside=1.2501,
        limits={"max_latency_ratio": 1.25},
    ),
    Limit(check="latency", made=of_small_latency, inside=0.00199, outside=0.00201, measured=False),
    # Its interval is 0.01 to both sides.
    Limit(check="popular", made=of_popular, inside=-0.0099, outside=-0.0101, measured=False),
    Limit(check="recommend", made=of_held_out, inside=0.0199, outside=0.0201),
    Limit(check="recommend", made=of_recommend, inside=0.0199, outside=0.0201),
    Limit(
        check="recommend",
        made=of_recommend,
        inside=0.125,
        outside=0.1251,
        limits={"max_recommend_loss": 0.125},
    ),
]


async def run(name: str, comparison: Mapping[str, Any], limits: Mapping[str, float]) -> Check:
    check: Check | Awaitable[Check] = _CHECKS[name](
        Comparison(limits=GateLimits(**limits), **comparison)
    )
    return await check if inspect.isawaitable(check) else check


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.label)
async def test_a_check_passes_just_inside_its_limit_and_fails_just_outside(
    row: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, outcome in ((row.inside, CheckOutcome.PASSED), (row.outside, CheckOutcome.FAILED)):
        check = await run(row.check, row.made(monkeypatch, value), row.limits)
        assert (check.name, check.outcome) == (row.check, outcome), check.message
        if row.measured:
            assert check.value == pytest.approx(value, abs=1e-6)
            assert check.limit is not None
            assert min(row.inside, row.outside) <= check.limit <= max(row.inside, row.outside)


def test_every_check_and_every_limit_is_in_the_table() -> None:
    # It compares for equality, and has tests of its own.
    assert {row.check for row in TABLE} == set(_CHECKS) - {"model"}
    changed = {name for row in TABLE for name in row.limits}
    assert changed == {one.name for one in fields(GateLimits)}


@pytest.mark.parametrize(
    "row", [row for row in TABLE if len(row.limits) == 1], ids=lambda row: row.label
)
async def test_a_negative_limit_switches_a_check_off(
    row: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {name: -1.0 for name in row.limits}
    if row.check == "ndcg":
        limits = {"min_ndcg": -1.0, "max_ndcg_loss": -1.0}
    with pytest.raises(SkippedCheck, match="switched off"):
        await run(row.check, row.made(monkeypatch, row.outside), limits)


@pytest.mark.parametrize("users", [19, 20])
async def test_too_few_users_give_no_verdict(users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lists_of(monkeypatch, ours=0.0, theirs=0.5, users=users)
    candidate, live = Made(manifest=trained(), trained=OURS), Made(name="live", trained=THEIRS)
    comparison = compare(candidate, live, later=object())
    if users < 20:
        with pytest.raises(SkippedCheck, match="19 known users"):
            await run("recommend", comparison, {})
    else:
        assert (await run("recommend", comparison, {})).outcome is CheckOutcome.FAILED


async def test_a_snapshot_without_models_is_refused_if_the_live_one_has_some() -> None:
    live = Made(name="live", trained=THEIRS)
    check = await run("recommend", compare(Made(), live), {})
    assert (check.outcome, "--learn" in check.message) == (CheckOutcome.FAILED, True)
    for allowed in (compare(Made(), Made(name="live")), compare(Made(trained=OURS), Made())):
        with pytest.raises(SkippedCheck, match="the live snapshot was trained on no interactions"):
            await run("recommend", allowed, {})


async def test_a_held_out_loss_that_may_be_due_to_chance_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = of_held_out(monkeypatch, 0.5)
    held_out = lost["candidate"].manifest.behaviour.comparisons[0]
    assert (await run("recommend", lost, {})).outcome is CheckOutcome.FAILED
    held_out.gain_high = 0.0
    assert (await run("recommend", lost, {})).outcome is CheckOutcome.PASSED


async def test_inherited_and_unmeasured_models_are_not_compared_with_popular_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worse = of_popular(monkeypatch, -0.5)
    inherited = compare(worse["candidate"], Made(name="live", manifest=worse["candidate"].manifest))
    with pytest.raises(SkippedCheck, match="those of the live snapshot"):
        await run("popular", inherited, {})
    unmeasured = compare(Made(manifest=held_out("another", 0.5, 0.5), trained=OURS))
    with pytest.raises(SkippedCheck, match="under 20 users"):
        await run("popular", unmeasured, {})


@pytest.mark.parametrize(("documents", "before", "allowed"), [(30, 10, 3), (5_000, 0, 5_000)])
async def test_what_a_snapshot_costs_may_grow_as_its_documents_do(
    documents: int, before: int, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {1: (1.0, 1.5 * allowed), 2: (1.0, 1.5 * allowed + 0.1)}
    for number, outcome in ((1, CheckOutcome.PASSED), (2, CheckOutcome.FAILED)):
        pairs = [pair(seconds=slow[number])] * 20
        made = timed(monkeypatch, pairs, pairs)
        for one, count in (("candidate", documents), ("live", before)):
            made[one].manifest.documents = count
        assert (await run("latency", made, {})).outcome is outcome


async def test_too_few_requests_give_no_verdict() -> None:
    few = compare(replay=replayed([pair(seconds=(1.0, 100.0))] * 19))
    with pytest.raises(SkippedCheck, match="19 requests; 20 are needed"):
        await run("latency", few, {})


@pytest.mark.parametrize(("slow", "passes"), [(2, True), (6, False)])
async def test_the_slowest_hundredth_of_the_requests_decides(
    slow: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [pair(seconds=(1.0, 100.0 if number < slow else 1.0)) for number in range(400)]
    check = await run("latency", timed(monkeypatch, pairs, pairs), {})
    assert (check.outcome is CheckOutcome.PASSED) is passes


@pytest.mark.parametrize(("again", "passes"), [((1.0, 1.0), True), ((1.0, 9.0), False)])
async def test_requests_that_other_processes_may_have_delayed_are_sent_once_more(
    again: tuple[float, float], passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    delayed = [pair(seconds=(1.0, 9.0))] * 20
    check = await run("latency", timed(monkeypatch, delayed, [pair(seconds=again)] * 20), {})
    assert (check.outcome is CheckOutcome.PASSED) is passes


async def test_a_loss_that_may_be_due_to_chance_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The lists of one user of twenty are much worse: the mean loss is 0.05, above the limit.
    ours = np.full(20, 0.5)
    ours[0] = -0.5
    lists_of(monkeypatch, ours=0.0)
    monkeypatch.setattr(
        checks_behaviour,
        "ndcg_of_lists",
        lambda snapshot, *_, **more: ours if snapshot is OURS else np.full(20, 0.5),
    )
    candidate, live = Made(manifest=trained(), trained=OURS), Made(name="live", trained=THEIRS)
    comparison = compare(candidate, live, later=object())
    check = await run("recommend", comparison, {})
    assert check.value == pytest.approx(0.05) and check.outcome is CheckOutcome.PASSED


@pytest.mark.parametrize(("users", "ranked"), [(0, True), (3, True), (0, False)])
async def test_the_users_found_are_counted_if_they_are_too_few(
    users: int, ranked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists_of(monkeypatch, ours=0.5, theirs=0.5, users=users)
    manifest = trained()
    comparison = compare(
        Made(manifest=manifest if ranked else type(manifest)(), trained=OURS),
        Made(name="live", trained=THEIRS),
        later=object(),
    )
    with pytest.raises(SkippedCheck, match=f"^{users} known users"):
        await run("recommend", comparison, {})
