"""The later interactions on which snapshots are judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from index_builder.interactions.records import Interactions
from index_builder.releases import offline_eval
from index_builder.releases.offline_eval import (
    FutureInteractions,
    TrainedSnapshot,
    future_interactions,
    ndcg_of_lists,
)
from tests.retrieval.recommend.small_model import CARD, Goes, small_tables


def trained_on(
    ids: str, histories: Mapping[str, str], untrained: str = "", goes: Goes | None = None
) -> TrainedSnapshot:
    """Returns what a snapshot learned.

    Args:
        ids: Its items.
        histories: By user, newest first.
        untrained: Items without interactions.
        goes: What goes with an item, and how much.
    """
    popularity = {one: float(one not in untrained) for one in ids}
    had = {user: [(one, -at) for at, one in enumerate(had)] for user, had in histories.items()}
    return TrainedSnapshot.of(CARD, small_tables(ids, goes or {}, popularity, had))


OLD = trained_on("abcde", {"u": "a", "v": "b", "w": "c"}, untrained="e")
NEW = trained_on("bcdef", {"u": "b", "v": "c", "x": "b"}, untrained="c")
AFTER_US = 1_000


def later(rows: Sequence[tuple[str, str, int]]) -> Interactions:
    """Returns interactions: user, item and time of each."""
    users = sorted({user for user, _, _ in rows})
    items = sorted({item for _, item, _ in rows})
    return Interactions(
        users,
        items,
        np.array([users.index(user) for user, _, _ in rows], np.int32),
        np.array([items.index(item) for _, item, _ in rows], np.int32),
        np.array([time for _, _, time in rows], np.int64),
        np.ones(len(rows), np.float32),
    )


def wanted(
    rows: Interactions, snapshots: Sequence[TrainedSnapshot], *, repeats: bool
) -> dict[str, set[str]]:
    found = future_interactions(rows, AFTER_US, snapshots, repeats=repeats)
    return {user: set(items) for user, items in zip(found.users, found.items, strict=True)}


ALL = later([(user, item, AFTER_US + 1) for user in "uvwxy" for item in "abcdef"])


@pytest.mark.parametrize(
    ("snapshots", "repeats", "expected"),
    [
        # Every item with interactions, of every user with a history.
        ([OLD], True, {"u": set("abcd"), "v": set("abcd"), "w": set("abcd")}),
        ([OLD], False, {"u": set("bcd"), "v": set("acd"), "w": set("abd")}),
        # What both know; a history of either counts.
        ([OLD, NEW], True, {"u": set("bd"), "v": set("bd")}),
        ([OLD, NEW], False, {"u": set("d"), "v": set("d")}),
    ],
)
def test_users_and_items_are_those_that_all_snapshots_know(
    snapshots: Sequence[TrainedSnapshot], repeats: bool, expected: dict[str, set[str]]
) -> None:
    assert wanted(ALL, snapshots, repeats=repeats) == expected


def test_interactions_up_to_the_moment_do_not_count() -> None:
    rows = later([("u", "b", AFTER_US), ("u", "d", AFTER_US + 1), ("v", "a", AFTER_US - 1)])
    assert wanted(rows, [OLD], repeats=True) == {"u": {"d"}}


def test_a_user_without_any_item_to_find_is_left_out() -> None:
    rows = later([("u", "a", AFTER_US + 1), ("v", "e", AFTER_US + 1)])
    assert wanted(rows, [OLD], repeats=False) == {}


def test_many_users_are_sampled_each_with_their_own_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline_eval, "_MAX_USERS", 5)
    names = [f"u{number}" for number in range(6)]
    trained = trained_on("abcdef", dict.fromkeys(names, ""))
    rows = later([(name, "abcdef"[at], 2_000) for at, name in enumerate(names)])
    found = future_interactions(rows, AFTER_US, [trained], repeats=False)
    assert len(found.users) == 5 and list(found.users) == sorted(set(found.users))
    assert list(found.items) == [{"abcdef"[names.index(one)]} for one in found.users]
    assert found == future_interactions(rows, AFTER_US, [trained], repeats=False)
    monkeypatch.setattr(offline_eval, "_MAX_USERS", 6)
    all_of_them = future_interactions(rows, AFTER_US, [trained], repeats=False)
    assert isinstance(all_of_them, FutureInteractions) and list(all_of_them.users) == names


@pytest.mark.parametrize(
    ("repeats", "first", "expected"),
    [
        # The user had b, then a; c goes with a, d with nothing. Only repeats show a and b again.
        (False, 1, {"b": 0.0, "c": 1.0, "d": 0.0}),
        (False, 2, {"b": 0.0, "c": 1.0, "d": 1 / math.log2(3)}),
        (True, 1, {"a": 1.0, "b": 0.0, "c": 0.0}),
        (True, 2, {"a": 1.0, "b": 1 / math.log2(3), "c": 0.0}),
    ],
)
def test_lists_are_judged_as_they_are_shown(
    *, repeats: bool, first: int, expected: Mapping[str, float]
) -> None:
    trained = trained_on("abcd", {"u": "ab"}, goes={"a": {"c": 1.0}})
    for item, value in expected.items():
        later_on = FutureInteractions(users=["u"], items=[frozenset(item)])
        found = ndcg_of_lists(trained, later_on, first, repeats=repeats)
        assert found == pytest.approx([value]), item
