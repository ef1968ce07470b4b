"""Writes what became of documents into a collection of Milvus, so that it can be done again."""

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

# A call may take this long; it is begun only while the lease lasts longer.
WRITE_S = 5.0
# Rows of one call, and about as many bytes; a document's go in one call, however many they are.
_MAX_ROWS = 1_000
_MAX_BYTES = 4 << 20
_FIELDS = (
    *("document", "chunk", "start", "stop", "title", "gap", "passage", "rest"),
    *("attributes", "version", "expires", "vector"),
)
_TEXTS = ("title", "gap", "passage", "rest", "analysed")
# Documents whose rows are read whole at once.
_DOCUMENTS_PER_READ = 32


class DocumentWriter:
    """Writes documents into one collection of Milvus.

    A document's new rows are written in one call, over the old ones of the same number; then what
    it has beyond them is deleted, by key.

    Args:
        client: The Milvus.
        name: The collection of it.
        merger: Changes rows.
        words: The collection has the words of chunks.
        check_lease: Called before each call that writes; raises where it must not be begun.
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
        """Writes what became of documents; gives the timestamp from which reads see it, or 0.

        Args:
            outcomes: By document.
            seen: Timestamp of the last write before; 0: not known.
            now: Aware; documents that have expired are changed no more.
        """
        patches = {one: each for one, each in outcomes.items() if isinstance(each, PatchedDocument)}
        old = {one: each for one, each in outcomes.items() if not isinstance(each, PatchedDocument)}
        old_keys = await self._read_keys(old, seen)
        documents = [each.rows for each in old.values() if isinstance(each, ReplacedDocument)]
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
        """Reads the keys of all rows of some documents."""
        keys: set[str] = set()
        for ids in in_batches(document_ids):
            keys |= {row["key"] for row in await self._query(ids, ("chunk",), seen)}
        return keys

    async def _read_patched(
        self, patches: Mapping[str, PatchedDocument], seen: int, now: datetime
    ) -> list[Sequence[Mapping[str, Any]]]:
        """Reads documents, and gives their rows with attributes changed."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        ids = list(patches)
        for at in range(0, len(ids), _DOCUMENTS_PER_READ):
            for some in in_batches(ids[at : at + _DOCUMENTS_PER_READ]):
                for row in await self._query(some, self._fields, seen):
                    found.setdefault(row["document"], []).append(row)
        changed = (self._merger.patch_rows(rows, patches[one], now) for one, rows in found.items())
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
        """Reads all rows of a document that has more than one answer can hold."""
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
    """Puts documents together as far as they fit into a call."""
    call: list[Mapping[str, Any]] = []
    size = 0
    for rows in documents:
        own = sum(_bytes_of(row) for row in rows)
        if call and (len(call) + len(rows) > _MAX_ROWS or size + own > _MAX_BYTES):
            yield call
            call, size = [], 0
        call += rows
        size += own
    if call:
        yield call


def _bytes_of(row: Mapping[str, Any]) -> int:
    # Attributes are a guess: a row has no more of them than of text, or it is an odd one.
    return sum(len(row.get(field, "")) for field in _TEXTS) + 4 * len(row["vector"]) + 1_000
