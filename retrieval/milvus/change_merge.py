"""Merges the changes of a batch into one outcome per document."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.errors import InvalidRequest
from nearline.times import to_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.milvus.rows import (
    make_rows,
    parse_attributes,
    stored_attributes,
)
from retrieval.protocols import metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ReplacedDocument:
    """A document that was added or replaced as a whole, and its rows."""

    change: Change
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class RemovedDocument:
    """A document that was deleted or has expired."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchedDocument:
    """A document of which only some attributes change."""

    entries: Sequence[ChangeEntry]


DocumentOutcome: TypeAlias = ReplacedDocument | RemovedDocument | PatchedDocument


class ChangeMerger:
    """Merges the changes of one snapshot.

    A change that Milvus cannot store is skipped, logged and counted; the document stays unchanged.
    A router over Milvus rejects such changes, but a router with another backend may append them.

    Args:
        collection: Collection name.
        manifest: Manifest of the snapshot.
        kinds: Kinds of its attributes, by name.
        analyser: Splits chunks into words. If None, the Milvus collection stores no words.
    """

    def __init__(
        self,
        collection: str,
        manifest: snapshot_pb2.Manifest,
        kinds: Mapping[str, str],
        analyser: Analyser | None,
    ) -> None:
        self._collection = collection
        self._fingerprint = manifest.embedder.fingerprint
        self._dim = manifest.dim
        self._kinds = kinds
        self._analyser = analyser

    def merge(self, entries: Sequence[ChangeEntry], now: datetime) -> Mapping[str, DocumentOutcome]:
        """Returns the outcome of each document; those whose changes were all skipped are omitted.

        Args:
            entries: Changes; the changes of one document are in log order.
            now: Timezone-aware; documents that expire at or before this time count as removed.
        """
        outcomes: dict[str, DocumentOutcome] = {}
        for entry in entries:
            document_id = entry.change.document_id
            try:
                after = self._outcome(outcomes.get(document_id), entry, now)
            except InvalidRequest as error:
                self._reject(entry, error)
                continue
            outcomes[document_id] = after
        return outcomes

    def patch_rows(
        self, rows: Sequence[Mapping[str, Any]], patch: PatchedDocument, now: datetime
    ) -> Sequence[Mapping[str, Any]]:
        """Returns the rows of a document with its attributes changed; empty if nothing changes.

        Args:
            rows: All current rows of the document.
            patch: The changes of its attributes.
            now: Timezone-aware; an expired document is not changed.
        """
        if not rows or rows[0]["expires"] <= to_us(now):
            return ()
        document_id, stored = rows[0]["document"], rows[0]["attributes"]
        version, expires = rows[0]["version"], rows[0]["expires"]
        changed = False
        for entry in patch.entries:
            merged = _merged(parse_attributes(stored, self._kinds), entry.change.attributes)
            try:
                stored = stored_attributes(document_id, merged, self._kinds)
            except InvalidRequest as error:
                self._reject(entry, error)
                continue
            version, changed = entry.position, True
            expires = to_us(entry.change.expires) if entry.change.expires else expires
        if not changed:
            return ()
        return [
            {**row, "attributes": stored, "version": version, "expires": expires} for row in rows
        ]

    def check(self, change: Change) -> None:
        """Checks that Milvus can store a change, which need not have its vectors yet.

        Raises: InvalidRequest: Names the field, the limit and the remedy.
        """
        if change.kind is ChangeKind.UPSERT:
            self._rows(change, 0, np.zeros((len(change.bounds), 0), np.float32))
        elif change.kind is ChangeKind.ATTRIBUTES:
            stored_attributes(change.document_id, change.attributes, self._kinds)

    def _outcome(
        self, before: DocumentOutcome | None, entry: ChangeEntry, now: datetime
    ) -> DocumentOutcome:
        change = entry.change
        match change.kind, before:
            case ChangeKind.DELETE, _:
                return RemovedDocument()
            case ChangeKind.UPSERT, _:
                return self._replaced(change, entry.position, now)
            case ChangeKind.ATTRIBUTES, RemovedDocument():
                return before
            case ChangeKind.ATTRIBUTES, ReplacedDocument(old):
                merged = replace(
                    old,
                    attributes=_merged(old.attributes, change.attributes),
                    expires=change.expires or old.expires,
                )
                return self._replaced(merged, entry.position, now)
            case ChangeKind.ATTRIBUTES, PatchedDocument(entries):
                return PatchedDocument([*entries, entry])
        return PatchedDocument([entry])

    def _replaced(self, change: Change, version: int, now: datetime) -> DocumentOutcome:
        vectors = change.vectors[self._fingerprint]
        wanted = (len(change.bounds), self._dim)
        assert vectors.shape == wanted, (
            f"{change.document_id!r} has vectors of shape {vectors.shape}; {wanted} is needed. "
            "This is a bug."
        )
        if change.expires is not None and change.expires <= now:
            return RemovedDocument()
        return ReplacedDocument(change, self._rows(change, version, vectors))

    def _rows(
        self, change: Change, version: int, vectors: NDArray[np.float32]
    ) -> Sequence[Mapping[str, Any]]:
        return make_rows(
            change.document_id,
            change.title,
            change.text,
            change.attributes,
            version=version,
            expires=change.expires,
            bounds=change.bounds,
            vectors=vectors,
            kinds=self._kinds,
            analyser=self._analyser,
        )

    def _reject(self, entry: ChangeEntry, error: InvalidRequest) -> None:
        metrics.changes_refused.labels(self._collection).inc()
        _log.error(
            "change skipped: milvus cannot store it; the item stays unchanged",
            extra={
                "collection": self._collection,
                "id": entry.change.document_id,
                "version": entry.position,
                "reason": error.message,
            },
        )


def _merged(old: Attributes, changes: Attributes) -> Attributes:
    return {name: v for name, v in {**old, **changes}.items() if v is not None}
