"""Documents that a snapshot lacks."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from index_builder.releases.checks_items import check_missing
from index_builder.releases.comparison import Comparison
from index_builder.releases.thresholds import GateLimits
from nearline.internal.v1 import change_pb2
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.archive import Archive
from retrieval.changelog.archive_segments import archive_row
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.protocols.watermark import Watermark
from tests.index_builder.releases.made_up_comparisons import Made, compare

FIRST, SECOND, OTHER = "1" * 32, "2" * 32, "3" * 32
PAST = datetime(2020, 1, 1, tzinfo=UTC)
# By log, in order: deleted, written, or written and expired since.
CHANGES = {
    FIRST: [
        Change(document_id="first1", kind=ChangeKind.DELETE),
        Change(document_id="first2", kind=ChangeKind.DELETE),
        Change(document_id="first3", kind=ChangeKind.DELETE),
    ],
    SECOND: [
        Change(document_id="second1", kind=ChangeKind.DELETE),
        Change(document_id="second2", kind=ChangeKind.UPSERT),
        Change(document_id="second3", kind=ChangeKind.UPSERT, expires=PAST),
        Change(document_id="second4", kind=ChangeKind.UPSERT),
    ],
}
CHANGED = [one.document_id for changes in CHANGES.values() for one in changes]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two archived logs, all of one partition; the second continues the first."""
    store = Store(tmp_path_factory.mktemp("store"))
    for number, (log_id, changes) in enumerate(CHANGES.items(), 1):
        follows = FIRST if log_id == SECOND else ""
        record = change_pb2.LogRecord(number=number, log_id=log_id, follows=follows)
        store.create_log_record("default", record)
        entries = [ChangeEntry(0, at, 1, change) for at, change in enumerate(changes, 1)]
        rows = [archive_row(entry) for entry in entries]
        start = Watermark(log_id)
        Archive(store, "default", log_id).add(rows, start, start.advanced({0: len(changes)}))
    return store


def having(log_id: str, position: int) -> snapshot_pb2.Manifest:
    """Returns the manifest of a snapshot that contains the changes of a log up to a position."""
    reached = Watermark(log_id).advanced({0: position}).encode() if position else b""
    return snapshot_pb2.Manifest(change_log_id=log_id, watermark=reached)


@pytest.mark.parametrize(
    ("live", "candidate", "missing"),
    [
        (having(FIRST, 1), having(FIRST, 2), ["first1"]),
        (having(FIRST, 1), having(SECOND, 1), ["first1"]),
        (having(FIRST, 2), having(SECOND, 3), ["first1", "first2", "second2"]),
        (having(SECOND, 1), having(SECOND, 2), [*CHANGED[:4], "second2"]),
        # An older one is promoted.
        (having(SECOND, 2), having(SECOND, 1), CHANGED[:4]),
        (having(SECOND, 2), having(FIRST, 2), CHANGED[:2]),
        (having("", 0), having("", 0), []),
        (having("", 0), having(SECOND, 1), []),
        (having("", 0), having(SECOND, 4), ["second2", "second4"]),
        (having(FIRST, 2), having("", 0), []),
        (having(FIRST, 2), having(OTHER, 1), CHANGED),
        # What an unknown log had is not known: all of the lineage counts.
        (having(OTHER, 1), having(FIRST, 2), []),
    ],
)
def test_a_document_is_missing_unless_the_logs_explain_it(
    logged: Store,
    live: snapshot_pb2.Manifest,
    candidate: snapshot_pb2.Manifest,
    missing: list[str],
) -> None:
    made = compare(
        Made(manifest=candidate, store=logged),
        Made(name="live", manifest=live, documents=CHANGED, store=logged),
    )
    check = check_missing(Comparison(limits=GateLimits(), **made))
    assert check.value == len(missing) / len(CHANGED)
    assert re.findall("'(.*?)'", check.message) == missing[:3]
