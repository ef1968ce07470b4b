"""Embedding of changes that lack vectors of a snapshot's model."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from nearline.contract import Lane
from nearline.errors import InvalidRequest, Unsupported
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.embedders.documents import DocumentEmbeddings
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics

# Texts and a fingerprint to vectors, on the bulk lane.
EmbedTexts: TypeAlias = Callable[[Sequence[str], str], Awaitable[DocumentEmbeddings]]
# Changes embedded in one call: a failed call loses the vectors of at most this many.
_BATCH_CHANGES = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reembedder:
    """Completes changes for the snapshots of one model.

    fingerprint: Fingerprint of the model; empty if users provide the vectors.
    dim: Dimension of the vectors.
    embed: Embeds documents; None if there is no embedding service.
    """

    collection: str
    fingerprint: str
    dim: int
    embed: EmbedTexts | None = None

    def batches(self, entries: Sequence[ChangeEntry]) -> Iterator[Sequence[ChangeEntry]]:
        """Splits entries, in order, into batches that each need few vectors."""
        start = lacking = 0
        for at, entry in enumerate(entries):
            lacking += self._lacks(entry.change)
            if lacking == _BATCH_CHANGES:
                yield entries[start : at + 1]
                start, lacking = at + 1, 0
        if start < len(entries):
            yield entries[start:]

    async def complete(self, entries: Sequence[ChangeEntry]) -> Sequence[ChangeEntry]:
        """Returns the entries, with vectors of the model added where they are missing.

        Drops chunks that the model rejects, as builds do. An item without any remaining chunk
        becomes a deletion, and so does an item without vectors if users provide them.

        Raises: Unsupported: there is no embedding service. SnapshotMismatch: no embedding service
            has the model. Any other error of `embed`.
        """
        lacking = [at for at, entry in enumerate(entries) if self._lacks(entry.change)]
        if not lacking:
            return entries
        texts = [entries[at].change.texts for at in lacking]
        embedded = await self._embedded([one for each in texts for one in each])
        completed = list(entries)
        row = 0
        for at, each in zip(lacking, texts, strict=True):
            rows = range(row, row + len(each))
            completed[at] = completed[at]._replace(
                change=self._with_vectors(completed[at].change, embedded, rows)
            )
            row = rows.stop
        return completed

    def _lacks(self, change: Change) -> bool:
        if change.kind is not ChangeKind.UPSERT:
            return False
        vectors = change.vectors.get(self.fingerprint)
        # A rebuilt snapshot may have a different dimension from the one that the change was
        # embedded for.
        return vectors is None or vectors.shape != (len(change.bounds), self.dim)

    async def _embedded(self, texts: Sequence[str]) -> DocumentEmbeddings:
        if not self.fingerprint:
            missing = InvalidRequest(f"it has no vector of {self.dim} numbers")
            nothing = np.zeros((len(texts), self.dim), np.float32)
            return DocumentEmbeddings(nothing, dict.fromkeys(range(len(texts)), missing))
        if self.embed is None:
            raise Unsupported(
                f"changes lack vectors of model fingerprint {self.fingerprint}, and this "
                "service has no embedding service; start it with --embedding HOST:PORT"
            )
        embedded = await self.embed(texts, self.fingerprint)
        metrics.chunks_embedded.labels(self.collection).inc(len(texts))
        return embedded

    def _with_vectors(self, change: Change, embedded: DocumentEmbeddings, rows: range) -> Change:
        refused = {row: embedded.refused[row] for row in rows if row in embedded.refused}
        kept = np.array([row for row in rows if row not in refused], np.int64)
        if refused:
            _log.error(
                "chunks of a change were dropped",
                extra={
                    "collection": self.collection,
                    "id": change.document_id,
                    "chunks": len(refused),
                    "of": len(rows),
                    "reason": next(iter(refused.values())).message,
                },
            )
        if not kept.size:
            return Change(document_id=change.document_id, kind=ChangeKind.DELETE)
        return replace(
            change,
            bounds=change.bounds[kept - rows.start],
            vectors={**change.vectors, self.fingerprint: embedded.vectors[kept]},
        )


def make_bulk_embed(embedders: Embedders) -> EmbedTexts:
    """Returns a function that embeds documents on the bulk lane, without a time limit."""

    async def embed(texts: Sequence[str], fingerprint: str) -> DocumentEmbeddings:
        return await embedders.embed_documents(texts, fingerprint, Lane.BULK, None)

    return embed
