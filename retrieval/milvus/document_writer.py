"""Writes documents into a Milvus collection with repeatable calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from retrieval.milvus.change_merge import (
    ChangeMerger,
    DocumentOutcome,
    PatchedDocument,
    ReplacedDocument,
)
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import MAX_ROWS
from retrieval.milvus.reader import in_batches

# Timeout of a call in seconds; a call starts only if the lease lasts longer.
WRITE_S = 5.0
# Bounds of a call in rows and approximate bytes; the rows of one document are never split.
_MAX_CALL_ROWS = 1_000
_MAX_CALL_BYTES = 4 << 20
_FIELDS = (
    *("document", "chunk", "start", "stop", "title", "gap", "passage", "rest"),
    *("attributes", "version", "expires", "vector"),
)
_TEXTS = ("title", "gap", "passage", "rest", "analysed")
# Documents whose complete rows are read together.
_DOCUMENTS_PER_READ = 32


class DocumentWriter:
    """Writes documents into one Milvus collection.

    The new rows of a document are written in one call and replace the old rows of the same chunks;
    then surplus old rows are deleted by key.

    Args:
        client: Client of the Milvus server.
        name: Name of the Milvus collection.
        merger: Applies attribute changes to rows.
        words: Whether the collection stores the words of chunks.
        check_lease: Called before each write; raises if the write must not start.
    """

    def __init__(
        self,
        client: MilvusClient,
        name: str,
        merger: ChangeMerger,
        *,
        words: bool,
        check_lease: Callable[[], None],
    ) -> None:
        self._client = client
        self._name = name
        self._merger = merger
        self._fields = (*_FIELDS, "analysed") if words else _FIELDS
        self._check_lease = check_lease

    async def write(self, outcomes: Mapping[str, DocumentOutcome], seen: int, now: datetime) -> int:
        """Writes the outcomes of documents; returns the timestamp from which reads see them, or 0.

        Args:
            outcomes: Outcome of each document, by id.
            seen: Timestamp of the previous write; 0 if unknown.
            now: Timezone-aware; expired documents are not changed.
        """
        patches: dict[str, PatchedDocument] = {}
        overwritten: list[str] = []
        documents: list[Sequence[Mapping[str, Any]]] = []
        for document_id, outcome in outcomes.items():
            if isinstance(outcome, PatchedDocument):
                patches[document_id] = outcome
                continue
            overwritten.append(document_id)
            if isinstance(outcome, ReplacedDocument):
                documents.append(outcome.rows)
        old_keys = await self._read_keys(overwritten, seen)
        documents += await self._read_patched(patches, seen, now)
        kept = {row["key"] for rows in documents for row in rows}
        written = seen
        for rows in _split_calls(documents):
            self._check_lease()
            written = await self._client.upsert(self._name, rows, timeout_s=WRITE_S)
        for keys in in_batches(sorted(old_keys - kept)):
            self._check_lease()
            written = await self._client.delete(self._name, any_of("key", keys), timeout_s=WRITE_S)
        return written

    async def _read_keys(self, document_ids: Iterable[str], seen: int) -> set[str]:
        """Returns the keys of all rows of documents."""
        keys: set[str] = set()
        for ids in in_batches(document_ids):
            keys |= {row["key"] for row in await self._query(ids, ("chunk",), seen)}
        return keys

    async def _read_patched(
        self, patches: Mapping[str, PatchedDocument], seen: int, now: datetime
    ) -> list[Sequence[Mapping[str, Any]]]:
        """Reads documents and returns their rows with attributes changed."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        ids = list(patches)
        for at in range(0, len(ids), _DOCUMENTS_PER_READ):
            for some in in_batches(ids[at : at + _DOCUMENTS_PER_READ]):
                for row in await self._query(some, self._fields, seen):
                    found.setdefault(row["document"], []).append(row)
        changed = (self._merger.patch_rows(rows, patches[key], now) for key, rows in found.items())
        return [rows for rows in changed if rows]

    async def _query(
        self, ids: Sequence[str], fields: Sequence[str], seen: int
    ) -> list[Mapping[str, Any]]:
        rows = await self._client.query(
            self._name, any_of("document", ids), fields, seen=seen, timeout_s=WRITE_S
        )
        if len(rows) < MAX_ROWS:
            return rows
        if len(ids) == 1:
            return await self._query_document(ids[0], fields, seen)
        half = len(ids) // 2
        return await self._query(ids[:half], fields, seen) + await self._query(
            ids[half:], fields, seen
        )

    async def _query_document(
        self, document_id: str, fields: Sequence[str], seen: int
    ) -> list[Mapping[str, Any]]:
        """Reads all rows of a document that has more rows than one reply can hold."""
        rows: list[Mapping[str, Any]] = []
        while len(rows) % MAX_ROWS == 0:
            wanted = f"({any_of('document', [document_id])}) and chunk >= {len(rows)}"
            more = await self._client.query(
                self._name, wanted, fields, seen=seen, timeout_s=WRITE_S
            )
            if not more:
                break
            rows += more
        return rows


def _split_calls(
    documents: Sequence[Sequence[Mapping[str, Any]]],
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Groups the rows of documents into calls."""
    call: list[Mapping[str, Any]] = []
    size = 0
    for rows in documents:
        own = sum(_bytes_of(row) for row in rows)
        if call and (len(call) + len(rows) > _MAX_CALL_ROWS or size + own > _MAX_CALL_BYTES):
            yield call
            call, size = [], 0
        call += rows
        size += own
    if call:
        yield call


def _bytes_of(row: Mapping[str, Any]) -> int:
    # 1,000 bytes are an estimate of the attributes.
    return sum(len(row.get(field, "")) for field in _TEXTS) + 4 * len(row["vector"]) + 1_000
