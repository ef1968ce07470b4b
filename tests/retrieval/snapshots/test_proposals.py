"""The state of a proposal follows from the aliases; pruning keeps those that are pending."""

from __future__ import annotations

import pytest

from nearline.errors import AlreadyExists
from nearline.store.snapshot import Store
from nearline.v1.snapshot_pb2 import AliasRecord
from retrieval.snapshots import proposals
from retrieval.snapshots.proposals import ProposalState, propose, read_proposals, remove_proposal

A, B, C = (f"20261129T10000{number}Z-aaaaa{number}" for number in range(3))
# In place of a canary: the record is a rollback.
ROLLBACK = "rollback"


def _alias(store: Store, epoch: int, current: str, canary: str = "", why: str = "") -> AliasRecord:
    rolls_back = canary == ROLLBACK
    record = AliasRecord(
        epoch=epoch,
        current=current,
        canary="" if rolls_back else canary,
        why=why,
        rollback_to_epoch=1 if rolls_back else 0,
    )
    store.create_alias_record("c", record)
    return record


@pytest.fixture
def store(tmp_path: object) -> Store:
    return Store.open(str(tmp_path))


@pytest.mark.parametrize(
    ("records", "state", "why"),
    [
        ([], ProposalState.OPEN, ""),
        # The trial of another snapshot changes nothing.
        ([(A, C), (A, "")], ProposalState.OPEN, ""),
        ([(A, B)], ProposalState.ON_TRIAL, "record 2"),
        ([(A, B), (A, B)], ProposalState.ON_TRIAL, "record 2"),
        ([(A, B), (A, "")], ProposalState.REJECTED, "record 3"),
        ([(A, B), (A, ""), (C, "")], ProposalState.REJECTED, "record 3"),
        ([(A, B), (B, "")], ProposalState.PROMOTED, "record 3"),
        ([(B, "")], ProposalState.PROMOTED, "record 2"),
        # A later release is no verdict on it; a rollback is.
        ([(B, ""), (C, "")], ProposalState.PROMOTED, "record 2"),
        ([(B, ""), (A, ROLLBACK)], ProposalState.REJECTED, "record 3"),
        ([(B, ""), (A, ROLLBACK), (B, "")], ProposalState.REJECTED, "record 3"),
        ([(C, "")], ProposalState.OUTDATED, "record 2"),
        ([(C, ""), (A, "")], ProposalState.OUTDATED, "record 2"),
        # Another release ended the trial: it has not failed.
        ([(A, B), (C, "")], ProposalState.OUTDATED, "record 3"),
    ],
)
def test_the_state_follows_from_the_records_since(
    store: Store, records: list[tuple[str, str]], state: ProposalState, why: str
) -> None:
    propose(store, "c", B, "drift", _alias(store, 1, A))
    for epoch, (current, canary) in enumerate(records, start=2):
        _alias(store, epoch, current, canary, f"record {epoch}")
    (found,) = read_proposals(store, "c")
    assert (found.state, found.why) == (state, why)
    assert (found.snapshot_id, found.reason, found.epoch, found.current) == (B, "drift", 1, A)


def test_proposals_are_listed_newest_first_each_with_the_records_since_it(store: Store) -> None:
    propose(store, "c", B, "one", _alias(store, 1, A))
    propose(store, "c", C, "two", _alias(store, 2, B))
    assert [(one.reason, one.state) for one in read_proposals(store, "c")] == [
        ("two", ProposalState.OPEN),
        ("one", ProposalState.PROMOTED),
    ]


def test_a_snapshot_is_proposed_once_and_its_record_can_be_removed(store: Store) -> None:
    record = _alias(store, 1, A)
    propose(store, "c", B, "drift", record)
    with pytest.raises(AlreadyExists):
        propose(store, "c", B, "drift", record)
    remove_proposal(store, "c", B)
    remove_proposal(store, "c", B)
    assert read_proposals(store, "c") == []


def _content(**changed: str) -> bytes:
    """Returns a file of a proposal of C, with values in JSON that are not as they should be."""
    right = {"snapshot_id": f'"{C}"', "reason": '"r"', "epoch": "0", "current": '"x"'}
    pairs = (f'"{key}": {one}' for key, one in {**right, "time_s": "1.0", **changed}.items())
    return f"{{{', '.join(pairs)}}}".encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"[" * 100_000,
        b"\xff",
        _content(epoch='"y"'),
        _content(epoch="1e999"),
        _content(epoch="-1"),
        _content(time_s="1" + "0" * 400),
        _content(time_s="NaN"),
        _content(time_s="1e15"),
        _content(time_s="-1"),
        _content(reason=r'"\ud800"'),
        _content(reason=f'"{"x" * 10_001}"'),
        # Removing it would remove a file elsewhere.
        _content(snapshot_id='"../../../victim"'),
        _content(snapshot_id=f'"{A}"'),
    ],
)
def test_a_damaged_proposal_is_left_out_and_named_with_its_remedy(
    store: Store, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    propose(store, "c", B, "drift", _alias(store, 1, A))
    store.files.create(f"c/proposals/{C}.json", content)
    assert [one.snapshot_id for one in read_proposals(store, "c")] == [B]
    (record,) = caplog.records
    assert f"c/proposals/{C}.json" in record.message and record.message.endswith("remove the file")


def test_the_content_of_the_other_tests_is_otherwise_right(store: Store) -> None:
    store.files.create(f"c/proposals/{C}.json", _content())
    assert [one.snapshot_id for one in read_proposals(store, "c")] == [C]


def test_a_collection_without_proposals_reads_no_alias_record(store: Store) -> None:
    assert proposals.read_proposals(store, "c") == []
