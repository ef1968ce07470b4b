"""Imports: parts that any stream of the same rows makes, resumed streams, and rows refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nearline.contract import MAX_IMPORT_ROWS, ImportReply, InteractionColumns
from nearline.errors import AlreadyExists, InvalidRequest, SnapshotCorrupt
from nearline.store.snapshot import Store
from retrieval.users import importer as module
from retrieval.users.importer import Importer
from retrieval.users.imports import ImportedInteractions

PART = 10


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMPORT_PART_ROWS", PART)


@pytest.fixture(name="imported")
def give_imported(tmp_path: Path) -> ImportedInteractions:
    return ImportedInteractions(Store(tmp_path), "shop")


def rows(first: int, last: int) -> InteractionColumns:
    """Returns rows of the numbers first to last, exclusive."""
    numbers = range(first, last)
    return InteractionColumns(
        [f"u{one % 7}" for one in numbers],
        [f"i{one}" for one in numbers],
        [one * 1_000_000 for one in numbers],
        ["" if one % 2 else "cart" for one in numbers],
        [0.0 if one % 3 else 2.5 for one in numbers],
    )


def send(
    imported: ImportedInteractions, cuts: Sequence[int], name: str = "past", *, end: bool = True
) -> ImportReply | None:
    """Sends the rows between cuts; without an end, the stream breaks off after them."""
    importer = Importer(imported, name, cuts[0])
    for first, last in itertools.pairwise(cuts):
        importer.add(rows(first, last))
    return importer.finish() if end else None


def files(imported: ImportedInteractions, name: str = "past") -> list[tuple[int, int, bytes]]:
    folder = imported._files
    return [(one.number, one.rows, folder.read(one.path)) for one in imported.parts(name).values()]


def test_rows_are_stored_as_sent_with_the_default_kind(imported: ImportedInteractions) -> None:
    assert send(imported, [0, 4]) == ImportReply(4, 4, 0)
    (part,) = imported.parts("past").values()
    assert (part.number, part.rows, imported.count_rows()) == (0, 4, 4)
    assert imported.read(part).to_pylist() == [
        {
            "user": f"u{one}",
            "item": f"i{one}",
            "time_us": one * 1_000_000,
            "kind": "view" if one % 2 else "cart",
            "weight": 0.0 if one % 3 else 2.5,
        }
        for one in range(4)
    ]
    importer = Importer(imported, "short", 0)
    importer.add(InteractionColumns(["a"], ["b"], [7]))
    importer.finish()
    (part,) = imported.parts("short").values()
    assert imported.read(part).to_pylist() == [
        {"user": "a", "item": "b", "time_us": 7, "kind": "view", "weight": 0.0}
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 35), max_size=12), st.integers(0, 35))
def test_however_a_stream_is_cut_and_broken_off_the_same_files_result(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], broken: int
) -> None:
    whole = ImportedInteractions(Store(tmp_path_factory.mktemp("whole")), "shop")
    assert send(whole, [0, 35]) == ImportReply(35, 35, 0)
    other = ImportedInteractions(Store(tmp_path_factory.mktemp("other")), "shop")
    send(other, [0, *sorted(one for one in cuts if one < broken), broken], end=False)
    asked = Importer(other, "past", 0).finish().rows
    assert asked == broken // PART * PART
    reply = send(other, [asked, *sorted(one for one in cuts if one > asked), 35])
    assert reply == ImportReply(35, 35 - asked, 0)
    assert files(other) == files(whole)


def test_rows_that_are_stored_are_not_stored_again(imported: ImportedInteractions) -> None:
    send(imported, [0, 35])
    before = files(imported)
    assert send(imported, [0, 12, 35]) == ImportReply(35, 0, 35)
    assert send(imported, [30, 35]) == ImportReply(35, 0, 5)
    # Two that send at once: the second finds the files of the first.
    first, second = Importer(imported, "twice", 0), Importer(imported, "twice", 0)
    for one in (first, second):
        one.add(rows(0, 12))
    assert (first.finish().rows, second.finish().rows) == (12, 12)
    assert files(imported) == before and len(imported.parts("twice")) == 2


@pytest.mark.parametrize(
    "other",
    [rows(1, 11), rows(0, 9), rows(0, 10)._replace(weights=[]), rows(0, 12)],
    ids=["others", "fewer", "weights", "more"],
)
def test_an_import_has_one_content(
    imported: ImportedInteractions, other: InteractionColumns
) -> None:
    send(imported, [0, 10] if len(other.user_ids) < 12 else [0, 11])
    before = files(imported)
    importer = Importer(imported, "past", 0)
    with pytest.raises(AlreadyExists, match="a file that has grown, another import_id"):
        importer.add(other)
        importer.finish()
    assert files(imported) == before
    # Also if both began before any was stored.
    first, second = Importer(imported, "race", 0), Importer(imported, "race", 0)
    first.add(rows(0, 10))
    with pytest.raises(AlreadyExists, match="has other rows, or fewer, from row 1 on"):
        second.add(rows(10, 20))


def test_of_two_streams_with_different_last_parts_one_is_refused(
    imported: ImportedInteractions,
) -> None:
    first, second = (Importer(imported, "past", 0) for _ in range(2))
    first.add(rows(0, 3))
    second.add(rows(0, 4))
    reply = first.finish()
    assert (reply.rows, reply.recorded) == (3, 3)
    with pytest.raises(AlreadyExists, match="other rows, or fewer, from row 1 on"):
        second.finish()
    assert imported.count_rows() == 3


def test_a_stream_begins_at_a_part_that_is_due(imported: ImportedInteractions) -> None:
    send(imported, [0, 25])
    for first in (5, 30):
        with pytest.raises(InvalidRequest, match="25 rows of import 'past' are stored"):
            Importer(imported, "past", first)


def test_names_and_numbers_of_imports_are_bounded(
    imported: ImportedInteractions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("", ".deleted", "../x", "A", "a" * 65, "x.y"):
        with pytest.raises(InvalidRequest, match=r"1\.\.64 of a-z"):
            Importer(imported, name, 0)
    name = f"tenant.{'0' * 64}"
    send(imported, [0, 10], name)
    monkeypatch.setattr(module, "_MAX_IMPORTS", 1)
    with pytest.raises(InvalidRequest, match="has 1 imports, the most"):
        Importer(imported, "second", 0)
    monkeypatch.setattr(module, "_MAX_PARTS", 1)
    with pytest.raises(InvalidRequest, match="at most 10 rows"):
        send(imported, [0, 11], name)


def _changed(**columns: Any) -> InteractionColumns:
    return rows(0, 3)._replace(**columns)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (_changed(user_ids=["a", "", "b"]), r"row 13 .* in user_ids: an id has 1\.\.512 bytes"),
        (_changed(user_ids=["a", "ä" * 257, "b"]), r"row 13 .* in user_ids"),
        (_changed(item_ids=["a", "b", "x" * 513]), r"row 14 .* in item_ids"),
        (_changed(item_ids=["a", "b", "\ud800"]), "half a surrogate pair"),
        (_changed(times_us=[-1, 0, 0]), r"row 12 .* in times_us: send a time from 1970"),
        (_changed(times_us=[0, (time.time_ns() // 1_000) + 7_200_000_000, 0]), "row 13"),
        (_changed(kinds=["", "k" * 65, ""]), r"row 13 .* a kind has at most 64 bytes"),
        (_changed(weights=[1.0, float("nan"), 1.0]), r"row 13 .* in weights"),
        (_changed(weights=[1.0, -1.0, 1.0]), "or 0 for the weight of the kind"),
        (_changed(weights=[1.0, 1.0, 1e38]), r"row 14 .* in weights"),
        (_changed(times_us=[1]), "user_ids has 3 values and times_us has 1"),
        (_changed(kinds=["a"]), "a value per row in each column"),
        (rows(0, MAX_IMPORT_ROWS + 1), r"10,001 entries; 0\.\.10,000"),
    ],
)
def test_an_invalid_row_is_named_and_nothing_of_its_part_is_stored(
    imported: ImportedInteractions, columns: InteractionColumns, told: str
) -> None:
    importer = Importer(imported, "past", 0)
    importer.add(rows(0, 11))
    with pytest.raises(InvalidRequest, match=told):
        importer.add(columns)
    assert imported.count_rows() == 10


def test_the_id_of_a_tenant_does_not_count_as_part_of_its_users(
    imported: ImportedInteractions,
) -> None:
    importer = Importer(imported, "past", 0)
    importer.add(InteractionColumns([f"tenant/acme/{'x' * 512}"], ["i"], [0]))
    with pytest.raises(InvalidRequest, match="user_ids"):
        importer.add(InteractionColumns([f"tenant/acme/{'x' * 513}"], ["i"], [0]))


def test_deletions_are_remembered_for_good_also_those_before_an_import(
    imported: ImportedInteractions,
) -> None:
    assert not imported.mark_deleted("ann", 5)
    assert imported.deleted(["ann"]) == {"ann": 5}
    send(imported, [0, 3])
    for deleted_us in (5, 9, 5, 7):
        assert imported.mark_deleted("ann", deleted_us)
    assert imported.deleted(["bob", "ann"]) == {"ann": 9}
    assert imported.names() == ["past"] and imported.count_rows() == 3
    stored = imported._files.names("shop/interactions/.deleted")
    assert len(stored) == 3 and not any("ann" in one for one in stored)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_changes_what_is_read(tmp_path: Path, at: float, bit: int) -> None:
    imported = ImportedInteractions(Store(tmp_path), "shop")
    send(imported, [0, 3])
    (part,) = imported.parts("past").values()
    path = tmp_path / part.path
    data = path.read_bytes()
    table = imported.read(part)
    damaged = bytearray(data)
    damaged[int(at * len(data))] ^= 1 << bit
    path.chmod(0o600)
    path.write_bytes(damaged)
    try:
        assert imported.read(part).equals(table)
    except SnapshotCorrupt as error:
        assert "import it again" in error.message
    finally:
        path.write_bytes(data)


def test_a_damaged_part_says_what_to_do(imported: ImportedInteractions, tmp_path: Path) -> None:
    send(imported, [0, 3])
    (part,) = imported.parts("past").values()
    (tmp_path / part.path).write_bytes(b"PAR1 or not")
    with pytest.raises(SnapshotCorrupt, match="remove the file, and import it again"):
        imported.read(part)
