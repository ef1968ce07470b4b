"""Watermarks: positions in a change log."""

from __future__ import annotations

from retrieval.protocols.watermark import Watermark


def test_changes_between_two_positions_are_counted_in_all_partitions() -> None:
    first = Watermark("log", (3, 5, *[0] * 62))
    later = Watermark("log", (4, 5, *[0] * 61, 7))
    assert first.changes_from(later) == later.changes_from(first) == 8
    assert first.changes_from(first) == 0
    assert first.changes_from(Watermark("other", first.positions)) is None
