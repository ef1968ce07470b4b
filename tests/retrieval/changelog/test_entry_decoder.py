"""New entries must continue those read before: no gap, no other history under the same numbers."""

from __future__ import annotations

import pytest

from nearline.errors import SnapshotMismatch
from retrieval.changelog.change_log import LogDiverged
from retrieval.changelog.entry_decoder import EntryChain, PartitionHead, RawEntry, parse_head

PARTITION = 3
HEAD = PartitionHead("log", 9, 0, b"n9")


def _entries(first: int, last: int, branch: str = "n") -> list[RawEntry]:
    """Lists entries whose nonces name their numbers."""
    entries = []
    for number in range(first, last + 1):
        before = b"log" if number == 1 else f"{branch}{number - 1}".encode()
        nonce = f"{branch}{number}".encode()
        entries.append(RawEntry(PARTITION, number, {b"before": before, b"nonce": nonce}))
    return entries


def _chain(last: int) -> EntryChain:
    chain = EntryChain("log")
    chain.follow(PARTITION, 0, _entries(1, last))
    return chain


def test_entries_that_continue_each_other_are_followed() -> None:
    chain = _chain(3)
    chain.follow(PARTITION, 3, _entries(4, 5))
    assert [chain.knows(PARTITION, after) for after in (0, 3, 4, 5, 6)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    # A reader that begins in the middle has nothing to compare the first entry with.
    late = EntryChain("log")
    late.follow(PARTITION, 7, _entries(8, 9))
    assert late.knows(PARTITION, 9)
    with pytest.raises(LogDiverged):
        late.follow(PARTITION, 9, _entries(10, 10, "other"))


def test_a_gap_means_that_entries_were_trimmed() -> None:
    with pytest.raises(SnapshotMismatch, match="changes 4 to 4 of partition 3 are no longer"):
        _chain(3).follow(PARTITION, 3, _entries(5, 6))
    with pytest.raises(SnapshotMismatch, match="changes 5 to 6 of partition 3 are no longer"):
        _chain(3).follow(PARTITION, 3, [*_entries(4, 4), *_entries(7, 7)])


def test_another_history_with_the_same_numbers_is_found() -> None:
    with pytest.raises(LogDiverged, match="change 3 of partition 3 is gone"):
        _chain(3).follow(PARTITION, 3, _entries(4, 5, "other"))
    with pytest.raises(LogDiverged, match="change 4 of partition 3 is gone"):
        _chain(3).follow(PARTITION, 3, [*_entries(4, 4), *_entries(5, 5, "other")])
    with pytest.raises(LogDiverged, match="change 0 of partition 3 is gone"):
        EntryChain("another log").follow(PARTITION, 0, _entries(1, 1))


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (HEAD._replace(seq=3, nonce=b"n3"), None),
        (HEAD._replace(seq=4, nonce=b"anything"), None),
        (HEAD._replace(trimmed=3), None),
        (HEAD._replace(trimmed=4), SnapshotMismatch),
        (HEAD._replace(seq=2, nonce=b"n2"), LogDiverged),
        (HEAD._replace(seq=3, nonce=b"other3"), LogDiverged),
    ],
)
def test_a_head_must_contain_what_was_read(
    head: PartitionHead, error: type[SnapshotMismatch] | None
) -> None:
    chain = _chain(3)
    if error is None:
        chain.check_head(PARTITION, 3, head)
    else:
        with pytest.raises(error) as raised:
            chain.check_head(PARTITION, 3, head)
        assert type(raised.value) is error


def test_entries_that_a_head_promised_must_arrive() -> None:
    EntryChain("log").check_complete({PARTITION: 0}, [])
    chain = _chain(3)
    chain.check_head(PARTITION, 3, HEAD._replace(seq=3, nonce=b"n3"))
    chain.check_complete({PARTITION: 3}, [])
    chain.check_head(PARTITION, 3, HEAD)
    chain.check_complete({PARTITION: 3}, [PARTITION])
    chain.check_complete({PARTITION: 9}, [])
    with pytest.raises(LogDiverged, match="change 4 of partition 3 is gone"):
        chain.check_complete({PARTITION: 3}, [])
    # It is reported once: the reader starts again from elsewhere.
    chain.check_complete({PARTITION: 3}, [])


def test_a_missing_partition_has_an_empty_head() -> None:
    assert parse_head([None] * 6) == PartitionHead("", 0, 0, b"", 0, None)
    found = parse_head([b"log", b"9", b"2", b"n9", b"7", b"1"])
    assert found == PartitionHead("log", 9, 2, b"n9", 7, 1)
