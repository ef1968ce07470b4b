"""Merging recorded interactions with those of a file, without deleted users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np

from index_builder.interactions.recorded_interactions import (
    add_recorded,
    drop_deleted_histories,
    drop_deleted_users,
)
from index_builder.interactions.records import Interactions
from retrieval.behaviour.history import UserHistories
from retrieval.users.records import LoggedInteraction

SECOND = 1_000_000


def rows() -> Interactions:
    """u has x at 1 s and y at 2 s, v has x at 3 s."""
    return Interactions(
        ["u", "v"],
        ["x", "y"],
        np.array([0, 0, 1], np.int32),
        np.array([0, 1, 0], np.int32),
        np.array([1, 2, 3], np.int64) * SECOND,
        np.ones(3, np.float32),
    )


async def log(
    *entries: tuple[str, str, str, int, float | None],
) -> AsyncIterator[LoggedInteraction]:
    for user, item, kind, time_us, weight in entries:
        yield LoggedInteraction(user, "s", item, kind, time_us, weight)


def tuples(rows: Interactions) -> list[tuple[str, str, int, float]]:
    return [
        (rows.users[user], rows.items[item], time_us, weight)
        for user, item, time_us, weight in zip(
            rows.user.tolist(), rows.item.tolist(), rows.time_us.tolist(), rows.weight.tolist(),
            strict=True,
        )
    ]  # fmt: skip


async def test_the_log_adds_what_the_file_lacks() -> None:
    joined = await add_recorded(
        rows(),
        log(
            # The same second as in the file.
            ("u", "x", "view", SECOND + 5, None),
            ("u", "z", "view", 9 * SECOND, None),
            ("w", "x", "buy", 8 * SECOND, None),
            ("w", "y", "view", 8 * SECOND, 0.5),
            # Of no user.
            ("", "x", "view", 7 * SECOND, None),
        ),
        {"view": 2.0, "buy": 5.0},
    )
    assert joined.added == 3
    assert tuples(joined.interactions) == [
        *tuples(rows()),
        ("u", "z", 9 * SECOND, 2.0),
        ("w", "x", 8 * SECOND, 5.0),
        ("w", "y", 8 * SECOND, 0.5),
    ]


async def test_kinds_without_a_weight_are_skipped_if_any_has_one() -> None:
    entries = [("w", "x", "seen", 8 * SECOND, None)]
    assert (await add_recorded(rows(), log(*entries), {"view": 1.0})).added == 0
    assert (await add_recorded(rows(), log(*entries), {})).added == 1


async def test_kinds_of_weight_zero_are_skipped_in_the_log_as_in_a_file() -> None:
    entries = [("w", "x", "seen", 8 * SECOND, None), ("w", "y", "seen", 9 * SECOND, 3.0)]
    assert (await add_recorded(rows(), log(*entries), {"seen": 0.0})).added == 0


async def test_interactions_before_a_deletion_are_dropped() -> None:
    async def erased(users: Sequence[str]) -> Mapping[str, int]:
        assert list(users) == ["u", "v"]
        return {"u": SECOND}

    kept = await drop_deleted_users(rows(), erased)
    assert tuples(kept) == tuples(rows())[1:]
    histories = UserHistories(
        ["u", "v"],
        np.array([0, 2, 3]),
        np.array([1, 0, 0], np.int32),
        np.array([2, 1, 1], np.int64) * SECOND,
        np.ones(3, np.float32),
    )
    left = await drop_deleted_histories(histories, erased)
    assert list(left.users) == ["u", "v"] and left.starts.tolist() == [0, 1, 2]
    assert left.items.tolist() == [1, 0]

    async def all_of_u(users: Sequence[str]) -> Mapping[str, int]:
        return {"u": 10 * SECOND}

    left = await drop_deleted_histories(histories, all_of_u)
    assert list(left.users) == ["v"] and left.starts.tolist() == [0, 1]


async def test_nothing_is_copied_without_deletions() -> None:
    async def nobody(users: Sequence[str]) -> Mapping[str, int]:
        return {}

    mine = rows()
    assert await drop_deleted_users(mine, nobody) is mine
