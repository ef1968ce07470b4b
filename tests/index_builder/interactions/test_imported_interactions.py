"""Imported interactions as training data: weights, several imports, and deleted users."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from index_builder.interactions.imported_interactions import (
    add_recorded_and_imported,
    read_imported,
)
from nearline.contract import InteractionColumns
from nearline.store.snapshot import Store
from retrieval.users import importer as module
from retrieval.users.importer import Importer
from retrieval.users.imports import ImportedInteractions
from tests.index_builder.interactions.test_recorded_interactions import SECOND, log, rows, tuples
from tests.retrieval.changelog.memory_log import NoUsers

Row = tuple[str, str, int, str, float]


def write(store: Store, name: str, entries: Sequence[Row]) -> None:
    importer = Importer(ImportedInteractions(store, "shop"), name, 0)
    importer.add(InteractionColumns(*zip(*entries, strict=True)))
    importer.finish()


@pytest.fixture(name="store")
def give_store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_without_imports_there_is_nothing(store: Store) -> None:
    assert ImportedInteractions(store, "shop").count_rows() == 0
    assert tuples(read_imported(store, "shop", {})) == []


def test_a_row_has_its_own_weight_or_that_of_its_kind(store: Store) -> None:
    write(
        store, "a", [("u", "x", 1, "view", 0), ("u", "y", 2, "buy", 0), ("v", "x", 3, "buy", 0.5)]
    )
    assert ImportedInteractions(store, "shop").count_rows() == 3
    assert tuples(read_imported(store, "shop", {})) == [
        ("u", "x", 1, 1.0), ("u", "y", 2, 1.0), ("v", "x", 3, 0.5)
    ]  # fmt: skip
    weighed = read_imported(store, "shop", {"buy": 5.0, "view": 0.0})
    assert tuples(weighed) == [("u", "y", 2, 5.0), ("v", "x", 3, 0.5)]
    assert tuples(read_imported(store, "shop", {"cart": 1.0})) == []


def test_of_several_imports_the_first_with_an_interaction_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMPORT_PART_ROWS", 7)
    draw = random.Random(5)
    expected = []
    seen: set[tuple[str, str, int]] = set()
    for name in ("a", "b", "c"):
        entries: list[Row] = [
            (
                f"u{draw.randrange(3)}",
                f"i{draw.randrange(3)}",
                draw.randrange(6 * SECOND),
                "view",
                0,
            )
            for _ in range(20)
        ]
        write(store, name, entries)
        keys = [(user, item, time_us // SECOND) for user, item, time_us, *_ in entries]
        expected += [
            (*one[:3], 1.0) for one, key in zip(entries, keys, strict=True) if key not in seen
        ]
        seen |= set(keys)
    assert tuples(read_imported(store, "shop", {})) == expected
    assert 20 < len(expected) < 60


def test_who_was_deleted_is_left_out_up_to_that_time(store: Store) -> None:
    write(
        store, "a", [("u", "x", 1, "view", 0), ("u", "x", 9, "view", 0), ("v", "x", 1, "view", 0)]
    )
    ImportedInteractions(store, "shop").mark_deleted("u", 5)
    assert tuples(read_imported(store, "shop", {})) == [("u", "x", 9, 1.0), ("v", "x", 1, 1.0)]
    # What is imported later, too.
    write(store, "b", [("u", "y", 5, "view", 0), ("u", "y", 6, "view", 0)])
    assert ("u", "y", 5, 1.0) not in tuples(read_imported(store, "shop", {}))
    assert ("u", "y", 6, 1.0) in tuples(read_imported(store, "shop", {}))


async def test_a_file_comes_before_the_log_and_the_log_before_imports(store: Store) -> None:
    class Users(NoUsers):
        def logged(self, collection: str) -> object:
            assert collection == "shop"
            return log(("u", "x", "view", SECOND, None), ("w", "z", "view", 7 * SECOND, 3.0))

    same = ("u", "x", SECOND + 3, "view", 0.25)
    write(
        store, "a", [same, ("w", "z", 7 * SECOND, "view", 0), ("new", "z", 8 * SECOND, "view", 0)]
    )
    joined = await add_recorded_and_imported(rows(), Users(), store, "shop", {})  # type: ignore[arg-type]
    assert joined.added == 2
    assert tuples(joined.interactions) == [
        *tuples(rows()), ("w", "z", 7 * SECOND, 3.0), ("new", "z", 8 * SECOND, 1.0)
    ]  # fmt: skip
    alone = await add_recorded_and_imported(rows(), None, store, "shop", {})
    assert alone.added == 2
