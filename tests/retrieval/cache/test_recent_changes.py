"""The effect of changes on cached lists, without a log."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from nearline.store.snapshot import partition_of
from retrieval.cache.cached_list import CachedList
from retrieval.cache.change_tracker import RecentChanges
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.protocols.watermark import Watermark
from tests.retrieval.cache.sample_lists import mark

IDS = [f"d{number}" for number in range(12)]


def entry(name: str, position: int, kind: ChangeKind = ChangeKind.UPSERT) -> ChangeEntry:
    return ChangeEntry(partition_of(name), position, 0, Change(document_id=name, kind=kind))


def hot(*ids: str, has: Watermark | None = None) -> CachedList:
    return CachedList(ids, (b"",) * len(ids), 0, 0.0, has.encode() if has else b"")


def ids(hot: CachedList | None) -> list[str]:
    assert hot is not None and len(hot.messages) == len(hot.ids)
    return list(hot.ids)


def test_a_list_without_changed_items_is_returned_unchanged() -> None:
    made = hot("d0", "d1", has=mark(5))
    touches = RecentChanges(mark(5), 100)
    touches.add([entry("d2", 6)])
    read = touches.read(made)
    assert read.cached is made and read.least is None


def test_deleted_items_are_left_out_of_a_list_that_stays_current() -> None:
    touches = RecentChanges(mark(5), 100)
    touches.add([entry("d1", 6, ChangeKind.DELETE)])
    read = touches.read(hot("d0", "d1", "d2", has=mark(5)))
    assert (ids(read.cached), read.least) == (["d0", "d2"], None)


@pytest.mark.parametrize("kind", [ChangeKind.UPSERT, ChangeKind.ATTRIBUTES])
def test_a_changed_item_requires_a_list_with_the_change(kind: ChangeKind) -> None:
    touches = RecentChanges(mark(5), 100)
    touches.add([entry("d1", 6, kind), entry("d1", 7, kind)])
    read = touches.read(hot("d0", "d1", has=mark(5)))
    assert read.least == mark(5).advanced({partition_of("d1"): 7})
    assert ids(read.cached) == ["d0", "d1"]
    assert touches.read(hot("d0", "d1", has=read.least)).least is None


def test_an_item_that_is_written_after_its_deletion_counts_as_changed() -> None:
    touches = RecentChanges(mark(5), 100)
    touches.add([entry("d1", 6, ChangeKind.DELETE), entry("d1", 7)])
    read = touches.read(hot("d1", has=mark(5)))
    assert ids(read.cached) == ["d1"]
    assert read.least == mark(5).advanced({partition_of("d1"): 7})


def test_a_change_of_the_item_of_a_list_requires_a_new_list() -> None:
    touches = RecentChanges(mark(5), 100)
    for kind in (ChangeKind.UPSERT, ChangeKind.DELETE):
        position = 6 + (kind is ChangeKind.DELETE)
        touches.add([entry("d9", position, kind)])
        made = hot("d0", has=mark(5))
        assert touches.read(made).least is None
        least = mark(5).advanced({partition_of("d9"): position})
        assert touches.read(made, "d9").least == least
        assert touches.read(hot("d0", has=least), "d9").least is None


def test_a_missing_item_is_read_again_once_it_is_written() -> None:
    touches = RecentChanges(mark(5), 100)
    assert touches.read(None, "d9") == (None, None)
    touches.add([entry("d9", 6)])
    assert touches.read(None, "d9") == (None, mark(5).advanced({partition_of("d9"): 6}))
    assert touches.read(None, "d8") == (None, None)
    touches.add([entry("d9", 7, ChangeKind.DELETE)])
    assert touches.read(None, "d9") == (None, None)


@pytest.mark.parametrize("has", [None, mark(5, "other")])
def test_a_list_of_unknown_age_only_loses_deleted_items(has: Watermark | None) -> None:
    touches = RecentChanges(mark(5), 100)
    touches.add([entry("d0", 6), entry("d1", 6, ChangeKind.DELETE)])
    read = touches.read(hot("d0", "d1", has=has))
    assert (ids(read.cached), read.least) == (["d0"], None)


def test_changes_of_a_new_snapshot_are_dropped() -> None:
    touches = RecentChanges(mark(5), 100)
    touches.add([entry("d0", 6), entry("d1", 7)])
    touches.forget(mark(6, "other"))
    assert set(touches.items) == {"d0", "d1"}
    touches.forget(mark(6))
    assert set(touches.items) == {"d1"}
    # A list of the snapshot before lacks what is forgotten.
    assert touches.read(hot("d0", has=mark(5))).least == mark(6)
    assert touches.read(hot("d0", has=mark(6))).least is None
    # Going back to the older snapshot brings nothing back.
    touches.forget(mark(5))
    assert touches.floor == mark(6)


def test_a_new_list_must_have_the_later_of_two_changes_in_a_partition() -> None:
    names = (f"n{number}" for number in range(10_000))
    first, second = [one for one in names if partition_of(one) == 7][:2]
    touches = RecentChanges(mark(5), 100)
    touches.add([entry(first, 6), entry(second, 7)])
    for listed in ((first, second), (second, first)):
        assert touches.read(hot(*listed, has=mark(5))).least == mark(5).advanced({7: 7})


def test_the_oldest_changes_are_dropped_first() -> None:
    touches = RecentChanges(mark(5), 4)
    touches.add([entry(name, 6) for name in IDS[:4]])
    touches.add([entry("d0", 7), entry("d4", 6)])
    assert list(touches.items) == ["d0", "d4"]
    gone = {partition_of(name): 6 for name in ("d1", "d2", "d3")}
    assert touches.floor == mark(5).advanced(gone)


CHANGES = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(list(ChangeKind))), max_size=40)


@settings(max_examples=50)
@given(CHANGES, st.integers(0, 40), st.integers(2, 20), st.integers(0, 10), st.integers(0, 40))
def test_no_list_that_lacks_a_change_counts_as_current(
    changes: list[tuple[str, ChangeKind]], cut: int, limit: int, batch: int, rebased: int
) -> None:
    start = Watermark("log")
    touches = RecentChanges(start, limit)
    entries, heads = [], [start]
    for name, kind in changes:
        partition = partition_of(name)
        position = heads[-1].positions[partition] + 1
        entries.append(entry(name, position, kind))
        heads.append(heads[-1].advanced({partition: position}))
    for first in range(0, len(entries), batch + 1):
        touches.add(entries[first : first + batch + 1])
    touches.forget(heads[min(rebased, len(entries))])
    assert len(touches.items) <= limit
    # A list of all items that is made after `cut` changes: the last change of each after that.
    cut = min(cut, len(entries))
    missed = {one.change.document_id: one.change.kind for one in entries[cut:]}
    had = {one.change.document_id: one.change.kind for one in entries[:cut]}
    listed = [name for name in IDS if had.get(name) is not ChangeKind.DELETE]
    read = touches.read(hot(*listed, has=heads[cut]))
    lacking = {
        name for name in listed if missed.get(name, ChangeKind.DELETE) is not ChangeKind.DELETE
    }
    deleted = {name for name in listed if missed.get(name) is ChangeKind.DELETE}
    assert set(ids(read.cached)) >= set(listed) - deleted
    if read.least is None:
        assert not lacking and ids(read.cached) == [one for one in listed if one not in deleted]
    else:
        # What is asked for has all that the list lacks, and is in the log.
        assert heads[-1].covers(read.least)
        assert touches.read(hot(*read_again(listed, missed), has=heads[-1])).least is None


def read_again(listed: list[str], missed: dict[str, ChangeKind]) -> list[str]:
    return [name for name in listed if missed.get(name) is not ChangeKind.DELETE]
