"""Watermarks: positions in a change log."""

from __future__ import annotations

import pytest

from nearline.errors import InvalidRequest, SnapshotMismatch
from nearline.internal.v1 import change_pb2
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks


def test_changes_between_two_positions_are_counted_in_all_partitions() -> None:
    first = Watermark("log", (3, 5, *[0] * 62))
    later = Watermark("log", (4, 5, *[0] * 61, 7))
    assert first.changes_from(later) == later.changes_from(first) == 8
    assert first.changes_from(first) == 0
    assert first.changes_from(Watermark("other", first.positions)) is None


def test_a_watermark_covers_another_if_no_partition_is_behind() -> None:
    here = Watermark("log", (3, 5, *[0] * 62))
    assert here.covers(here)
    for other in (Watermark("log", (4, 5, *[0] * 62)), Watermark("log", (0,) * 63 + (1,))):
        assert not here.covers(other) and other.covers(other)
    ahead = Watermark("log", (9, 5, *[0] * 62))
    assert here.covers(ahead, [1, 2]) and not here.covers(ahead, [0])
    with pytest.raises(SnapshotMismatch, match="belongs to change log other"):
        here.covers(Watermark("other"))


def test_watermarks_advance_and_merge_forwards_and_are_limited_backwards() -> None:
    here = Watermark("log", (3, 5, *[0] * 62))
    other = Watermark("log", (4, 2, *[0] * 62))
    assert here.advanced({0: 2, 1: 6, 63: 1}).positions == (3, 6, *[0] * 61, 1)
    assert here.limited(other).positions == (3, 2, *[0] * 62)
    assert merge_watermarks((here, other)).positions == (4, 5, *[0] * 62)
    assert merge_watermarks((here, Watermark("next", (9,) * 64))) == here


def test_an_encoded_watermark_is_read_again() -> None:
    here = Watermark("log", tuple(range(64)))
    assert decode_watermark(here.encode()) == here
    assert decode_watermark(b"") is None


@pytest.mark.parametrize(
    "data",
    [
        b"forged",
        change_pb2.Watermark(log_id="log", positions=[1] * 63).SerializeToString(),
        change_pb2.Watermark(log_id="log", positions=[1] * 65).SerializeToString(),
        change_pb2.Watermark(positions=[1] * 64).SerializeToString(),
        change_pb2.Watermark(log_id="l" * 1_024, positions=[1] * 64).SerializeToString(),
    ],
    ids=["not a message", "a partition too few", "one too many", "no log", "too long"],
)
def test_bytes_that_are_no_watermark_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="min_watermark is not a watermark") as caught:
        decode_watermark(data)
    assert caught.value.field == "min_watermark"
