"""Vectors for changes that came without those of a snapshot's model."""

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
# Changes embedded before the first of them is applied: what is lost where a call fails.
_AT_ONCE = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reembedder:
    """Completes changes for the snapshots of one model.

    fingerprint: Of the model; empty: users bring the vectors.
    dim: Numbers in a vector.
    embed: Embeds documents; None: there is no embedding service.
    """

    collection: str
    fingerprint: str
    dim: int
    embed: EmbedTexts | None = None

    def pieces(self, entries: Sequence[ChangeEntry]) -> Iterator[Sequence[ChangeEntry]]:
        """Cuts entries into runs that each need few vectors; their order stays."""
        start = lacking = 0
        for at, entry in enumerate(entries):
            lacking += self._lacks(entry.change)
            if lacking == _AT_ONCE:
                yield entries[start : at + 1]
                start, lacking = at + 1, 0
        if start < len(entries):
            yield entries[start:]

    async def complete(self, entries: Sequence[ChangeEntry]) -> Sequence[ChangeEntry]:
        """Returns the entries with vectors of the model in each that needs them.

        A chunk that the model refuses is left out, as a build leaves it out; an item without any
        other is then as deleted. So is one without a vector where users bring them.

        Raises: Unsupported: there is nothing to embed with. SnapshotMismatch: no embedding service
            has that model. Whatever `embed` raises.
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
        # A snapshot made again may have another dim than the one that the change was made for.
        return vectors is None or vectors.shape != (len(change.bounds), self.dim)

    async def _embedded(self, texts: Sequence[str]) -> DocumentEmbeddings:
        if not self.fingerprint:
            missing = InvalidRequest(f"it has no vector of {self.dim} numbers of its own")
            nothing = np.zeros((len(texts), self.dim), np.float32)
            return DocumentEmbeddings(nothing, dict.fromkeys(range(len(texts)), missing))
        if self.embed is None:
            raise Unsupported(
                f"changes came without vectors of model fingerprint {self.fingerprint}, and there "
                "is no embedding service here to make them; start it with --embedding HOST:PORT"
            )
        embedded = await self.embed(texts, self.fingerprint)
        metrics.chunks_embedded.labels(self.collection).inc(len(texts))
        return embedded

    def _with_vectors(self, change: Change, embedded: DocumentEmbeddings, rows: range) -> Change:
        refused = {row: embedded.refused[row] for row in rows if row in embedded.refused}
        kept = np.array([row for row in rows if row not in refused], np.int64)
        if refused:
            _log.error(
                "chunks of a change left out",
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
    """Returns what embeds documents where nobody waits for them."""

    async def embed(texts: Sequence[str], fingerprint: str) -> DocumentEmbeddings:
        return await embedders.embed_documents(texts, fingerprint, Lane.BULK, None)

    return embed
