"""Merging the changes of a batch per document."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from nearline.contract import Attributes
from nearline.errors import InvalidRequest
from nearline.times import to_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.milvus.change_merge import (
    ChangeMerger,
    PatchedDocument,
    RemovedDocument,
    ReplacedDocument,
)
from retrieval.milvus.layout import NEVER_EXPIRES

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = {"year": "int", "price": "double", "made": "time"}


@pytest.fixture(name="merger")
def give_merger() -> ChangeMerger:
    """Returns a merger for vectors of two numbers."""
    manifest = snapshot_pb2.Manifest(dim=2)
    manifest.embedder.fingerprint = "model"
    return ChangeMerger("default", manifest, KINDS, None)


def upsert(
    text: str = "ab", attributes: Attributes | None = None, expires: datetime | None = None
) -> Change:
    return Change(
        document_id="d",
        kind=ChangeKind.UPSERT,
        text=text,
        attributes=attributes or {},
        bounds=np.array([[0, 1], [1, len(text)]]),
        vectors={"model": np.ones((2, 2), np.float32), "other": np.zeros((2, 2), np.float32)},
        expires=expires,
    )


def patch(attributes: Attributes) -> Change:
    return Change(document_id="d", kind=ChangeKind.ATTRIBUTES, attributes=attributes)


DELETE = Change(document_id="d", kind=ChangeKind.DELETE)


def entries(*changes: Change) -> list[ChangeEntry]:
    return [ChangeEntry(0, number, 0, change) for number, change in enumerate(changes, 1)]


def test_the_last_document_wins_with_later_attributes(
    merger: ChangeMerger,
) -> None:
    folded = merger.merge(
        entries(
            upsert("first"),
            DELETE,
            patch({"year": 9}),
            upsert("cd", {"year": 1, "price": 2.0}),
            patch({"year": None, "price": 3}),
        ),
        NOW,
    )
    outcome = folded["d"]
    assert isinstance(outcome, ReplacedDocument)
    assert [(row["chunk"], row["passage"], row["version"]) for row in outcome.rows] == [
        (0, "c", 5),
        (1, "d", 5),
    ]
    assert all(row["attributes"]["price"] == 3.0 for row in outcome.rows)
    assert all("year" not in row["attributes"] for row in outcome.rows)
    assert np.array_equal([row["vector"] for row in outcome.rows], np.ones((2, 2)))


def test_deleted_or_expired_documents_take_no_attributes(merger: ChangeMerger) -> None:
    for changes in (
        (upsert(), DELETE),
        (DELETE, patch({"year": 1})),
        (upsert(expires=NOW),),
        (upsert(), upsert(expires=NOW - timedelta(days=1))),
    ):
        assert isinstance(merger.merge(entries(*changes), NOW)["d"], RemovedDocument)
    assert isinstance(
        merger.merge(entries(upsert(expires=NOW + timedelta(1))), NOW)["d"], ReplacedDocument
    )


def test_attribute_changes_apply_in_order(merger: ChangeMerger) -> None:
    folded = merger.merge(entries(patch({"year": 1, "made": NOW}), patch({"year": None})), NOW)
    outcome = folded["d"]
    assert isinstance(outcome, PatchedDocument)
    row = {"document": "d", "attributes": {"year": 7, "price": 1.5}, "version": 0}
    rows = [{**row, "chunk": chunk, "expires": NEVER_EXPIRES, "passage": "x"} for chunk in range(2)]
    patched = merger.patch_rows(rows, outcome, NOW)
    wanted = {"price": 1.5, "made": to_us(NOW)}
    assert [one["attributes"] for one in patched] == [wanted, wanted]
    assert [(one["version"], one["chunk"], one["passage"]) for one in patched] == [
        (2, 0, "x"),
        (2, 1, "x"),
    ]
    assert merger.patch_rows([], outcome, NOW) == ()
    expired = [{**one, "expires": to_us(NOW)} for one in rows]
    assert merger.patch_rows(expired, outcome, NOW) == ()


def test_an_unstorable_change_leaves_the_document_unchanged(merger: ChangeMerger) -> None:
    bad = replace(upsert(), title="x" * 70_000)
    assert merger.merge(entries(bad), NOW) == {}
    kept = merger.merge(entries(upsert("ab"), bad, patch({"year": 1})), NOW)["d"]
    assert isinstance(kept, ReplacedDocument)
    assert kept.rows[0]["attributes"] == {"year": 1}
    large = patch({"other": "y" * 70_000})
    outcome = merger.merge(entries(large), NOW)["d"]
    assert isinstance(outcome, PatchedDocument)
    rows = [{"document": "d", "attributes": {}, "version": 1, "expires": NEVER_EXPIRES}]
    assert merger.patch_rows(rows, outcome, NOW) == ()
    for change in (bad, large, replace(upsert(), document_id="\x01")):
        with pytest.raises(InvalidRequest):
            merger.check(change)
    merger.check(upsert())
    merger.check(DELETE)
