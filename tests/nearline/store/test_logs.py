"""Change logs in every storage backend: records and archived segments."""

from __future__ import annotations

import pytest

from nearline.errors import AlreadyExists, InvalidRequest, NotFound, SnapshotCorrupt
from nearline.internal.v1.change_pb2 import LogRecord
from nearline.store.files import StoreFiles
from nearline.store.snapshot import Store

LOG = "0123456789abcdef" * 2


def test_the_highest_record_is_in_force(files: StoreFiles) -> None:
    store = Store(files)
    assert store.log_in_force("docs") is None
    for number in (1, 2, 10):
        store.create_log_record("docs", LogRecord(number=number, log_id=f"{number:032x}"))
        # Other files next to the records are ignored.
        store.create_log_segment("docs", f"{number:032x}", 1, b"")
    store.mark_log_ready("docs", 2)
    record = store.log_in_force("docs")
    assert record is not None and record.log_id == f"{10:032x}"
    assert [one.number for one in store.log_records("docs")] == [10, 2, 1]
    assert store.log_in_force("other") is None
    # A collection needs more than a log.
    assert store.collections() == []


def test_a_log_is_marked_ready_permanently(files: StoreFiles) -> None:
    store = Store(files)
    assert not store.log_ready("docs", 1)
    store.mark_log_ready("docs", 1)
    store.mark_log_ready("docs", 1)
    assert store.log_ready("docs", 1) and not store.log_ready("docs", 2)
    assert store.log_in_force("docs") is None


def test_segments(files: StoreFiles) -> None:
    store = Store(files)
    assert store.log_segments("docs", LOG) == []
    for number in (2, 10, 1):
        store.create_log_segment("docs", LOG, number, b"segment %d" % number)
    assert store.log_segments("docs", LOG) == [1, 2, 10]
    assert store.log_segments("docs", "f" * 32) == []
    assert store.read_log_segment("docs", LOG, 10) == b"segment 10"
    with pytest.raises(AlreadyExists):
        store.create_log_segment("docs", LOG, 10, b"another")
    for _ in range(2):
        store.remove_log_segment("docs", LOG, 2)
    assert store.log_segments("docs", LOG) == [1, 10]
    with pytest.raises(NotFound):
        store.read_log_segment("docs", LOG, 2)
    with pytest.raises(InvalidRequest, match="not the id of a change log"):
        store.log_segments("docs", "../aliases")


def test_a_record_that_cannot_be_read_is_named(files: StoreFiles) -> None:
    files.create("docs/log/0000000001.json", b"{")
    with pytest.raises(SnapshotCorrupt, match=r"log/0000000001\.json"):
        Store(files).log_in_force("docs")
