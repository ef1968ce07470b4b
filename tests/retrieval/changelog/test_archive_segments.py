"""Segments of an archived log: round trips, positions without changes, and damaged files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearline.errors import SnapshotCorrupt
from retrieval.changelog.archive_segments import LogSegment, archive_row, encode_segment
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.protocols.watermark import Watermark

LOG = "ab" * 16
START = Watermark(LOG)
END = START.advanced({0: 2, 5: 1})
CHANGE = Change(document_id="a", kind=ChangeKind.DELETE)
ENTRIES = [
    ChangeEntry(partition, position, 1_000 + position, CHANGE)
    for partition, position in ((0, 1), (0, 2), (5, 1))
]
WHOLE = encode_segment([archive_row(one) for one in ENTRIES], START, END)


def damaged(change: Callable[[pa.Table], pa.Table]) -> bytes:
    """Returns the segment with other columns, and the positions that its metadata states."""
    table = pq.read_table(pa.BufferReader(WHOLE))
    sink = pa.BufferOutputStream()
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), sink)
    return bytes(sink.getvalue())


def test_a_segment_holds_its_changes_and_their_positions() -> None:
    segment = LogSegment(WHOLE, "segment 7")
    assert (segment.before, segment.after, segment.changes) == (START, END, 3)
    found = list(segment.entries(START))
    assert [one[:3] for one in found] == [one[:3] for one in ENTRIES]
    assert {(one.change.document_id, one.change.kind) for one in found} == {
        ("a", ChangeKind.DELETE)
    }
    [later] = segment.entries(START.advanced({0: 1, 5: 1}))
    assert later[:3] == ENTRIES[1][:3]
    positions = segment.positions()
    assert [column.tolist() for column in positions] == [[0, 0, 5], [1, 2, 1], [1001, 1002, 1001]]
    assert {column.dtype for column in positions} == {np.dtype(np.int64)}


def test_an_empty_segment_has_no_positions() -> None:
    segment = LogSegment(encode_segment([], START, START), "segment 7")
    assert [len(column) for column in segment.positions()] == [0, 0, 0]
    assert list(segment.entries(START)) == []


def _texts(table: pa.Table) -> pa.Table:
    words = pa.array(["one"] * len(table))
    return table.set_column(table.schema.get_field_index("position"), "position", words)


@pytest.mark.parametrize("name", ["partition", "position", "time_us"])
def test_a_segment_without_a_column_of_positions_is_corrupt(name: str) -> None:
    segment = LogSegment(damaged(lambda table: table.drop_columns([name])), "segment 7")
    with pytest.raises(SnapshotCorrupt, match="segment 7 is not a readable segment"):
        segment.positions()
    with pytest.raises(SnapshotCorrupt, match="segment 7 is not a readable segment"):
        list(segment.entries(START))


def test_a_segment_whose_positions_are_no_numbers_is_corrupt() -> None:
    segment = LogSegment(damaged(_texts), "segment 7")
    with pytest.raises(SnapshotCorrupt, match="segment 7 is not a readable segment"):
        segment.positions()
    with pytest.raises(SnapshotCorrupt, match="segment 7 is not a readable segment"):
        list(segment.entries(START))


def test_a_segment_without_its_bounds_is_corrupt() -> None:
    table = pq.read_table(pa.BufferReader(WHOLE)).replace_schema_metadata({})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    with pytest.raises(SnapshotCorrupt, match="lacks the start or end position"):
        LogSegment(bytes(sink.getvalue()), "segment 7")
