"""Partitioning of interactions by owner, and the window in which an event counts as a repeat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nearline.contract import MAX_EVENT_ID_BYTES
from retrieval.users import recorder
from retrieval.users.keys import session_keys, user_keys
from retrieval.users.recorder import (
    DEDUP_WINDOW_S,
    OwnerBatch,
    event_digest,
    partition_by_owner,
    read_recent,
    write_recent,
)
from tests.retrieval.users.interactions import seen

NOW_S = 1_800_000_000


def test_an_event_is_recent_for_less_than_a_day() -> None:
    a, b, c = (event_digest(name) for name in "abc")
    raw = write_recent({a: NOW_S - DEDUP_WINDOW_S, b: NOW_S - DEDUP_WINDOW_S + 1, c: NOW_S})
    assert read_recent(raw, NOW_S) == {b: NOW_S - DEDUP_WINDOW_S + 1, c: NOW_S}
    assert read_recent(b"", NOW_S) == {}


def test_users_come_first_and_are_kept_as_long_as_users() -> None:
    given = [
        seen("a", 1, "", session_id="s"),
        seen("b", 2, "u", session_id="s"),
        seen("c", 3, "v", event_id="e"),
        seen("d", 4, "u"),
    ]
    batches = partition_by_owner("c", given, "key", NOW_S * 1_000_000, (500, 50))
    assert [batch[:2] for batch in batches] == [
        (user_keys("c", "u"), 500),
        (user_keys("c", "v"), 500),
        (session_keys("c", "s"), 50),
    ]
    assert [_items(batch) for batch in batches] == [["b", "d"], ["c"], ["a", "b"]]
    # The log has one entry of each interaction: that of the user, if there is one.
    logged = [[bool(one.words) for one in batch.interactions] for batch in batches]
    assert logged == [[True, True], [True], [True, False]]
    digests = {one.item_id: one.digest for batch in batches for one in batch.interactions}
    assert digests == {
        name: event_digest(event)
        for name, event in {"a": "key/0", "b": "key/1", "c": "e", "d": "key/3"}.items()
    }


def test_an_event_id_made_from_a_long_idempotency_key_has_the_size_of_an_event_id() -> None:
    def made(key: str) -> list[str]:
        (batch,) = partition_by_owner("c", [seen("a", 1), seen("b", 2)], key, 0, (1, 1))
        fields = [
            dict(zip(one.words[::2], one.words[1::2], strict=True)) for one in batch.interactions
        ]
        return [one["event"] for one in fields]

    keys = ["k" * (MAX_EVENT_ID_BYTES - 2), "k" * MAX_EVENT_ID_BYTES, "ä" * 64]
    ids = [one for key in keys for one in made(key)]
    assert ids[:2] == [f"{keys[0]}/0", f"{keys[0]}/1"]
    assert len(set(ids)) == 6
    assert max(len(one.encode()) for one in ids) == MAX_EVENT_ID_BYTES


@pytest.mark.parametrize(
    ("owners", "each", "stored", "on_loop"),
    [(16, 1, 200, True), (1, 1, 10_000, True), (1, 1, 17_000, False), (1, 512, 0, False)],
)
async def test_many_bytes_of_few_owners_are_encoded_off_the_event_loop(
    owners: int, each: int, stored: int, on_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = {}

    def note(name: str, result: list[Any]) -> Callable[..., list[Any]]:
        def step(*_: object) -> list[Any]:
            ran[name] = threading.current_thread() is threading.main_thread()
            return result

        return step

    async def nothing(*_: object, **__: object) -> list[Any]:
        return []

    async def read(*_: object) -> list[tuple[bytes, bytes]]:
        return [(b"", bytes(stored))] * owners

    for name in ("_unpack", "_plan"):
        monkeypatch.setattr(recorder, name, note(name, []))
    monkeypatch.setattr(recorder, "_read", read)
    monkeypatch.setattr(recorder, "_send", nothing)
    given = [seen("a", 1, f"u{number}") for number in range(owners) for _ in range(each)]
    batches = partition_by_owner("c", given, "key", NOW_S * 1_000_000, (500, 50))
    parts: Any = SimpleNamespace(encoding=nothing)
    await recorder.record_interactions(
        parts, parts, parts, batches, now_s=NOW_S, ring=8, log_ms=1_000
    )
    assert ran == {"_unpack": on_loop, "_plan": on_loop}


def _items(batch: OwnerBatch) -> list[str]:
    return [one.item_id for one in batch.interactions]
