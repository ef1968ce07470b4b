"""Lexical indexes of a few documents, as the builder writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from index_builder.documents.records import PreparedDocument, SourceLocation
from index_builder.documents.spool import Spool
from index_builder.indexes.lexical_writer import write_lexical
from nearline.contract import Item
from nearline.store.snapshot import shard_folder
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.index.lexical.vocabulary import Vocabulary

# Document number and chunk number.
ChunkName = tuple[int, int]
Found = dict[ChunkName, float]


class Document(NamedTuple):
    """A document of a test. popularity: 0..1."""

    title: str
    chunks: Sequence[str]
    attributes: Mapping[str, Any] = {}
    popularity: float = 0.0


class Built:
    """A lexical index on disk, and the names of its rows. card: None if no text has a word."""

    def __init__(
        self,
        folder: Path,
        documents: Sequence[Document],
        shards: int = 1,
        language: str = "english",
        *,
        weights: Mapping[str, float] | None = None,
        languages: Mapping[str, str] | None = None,
        popular: bool = False,
        synonyms: Sequence[SynonymRule] = (),
    ) -> None:
        spool = Spool(folder, shards)
        spool.begin()
        for number, one in enumerate(documents):
            ends = np.cumsum([len(chunk) for chunk in one.chunks]).tolist()
            item = Item(
                id=f"d{number:03}",
                title=one.title,
                text="".join(one.chunks),
                attributes=dict(one.attributes),
            )
            spool.add(
                PreparedDocument(
                    SourceLocation("t", number), item, list(zip([0, *ends], ends, strict=False))
                )
            )
        spool.finish()
        self.shards = shards
        self.folder = folder / "snapshot"
        for shard in range(shards):
            shard_folder(self.folder, shard).mkdir(parents=True)
        popularity = {f"d{n:03}": one.popularity for n, one in enumerate(documents)}
        self.card = write_lexical(
            spool,
            shards,
            language,
            self.folder,
            weights=weights,
            languages=languages,
            popularity=popularity if popular else None,
            synonyms=synonyms,
        )
        self.names: list[list[ChunkName]] = [
            [(int(d.id[1:]), n) for d in spool.shard_documents(shard) for n in range(len(d.bounds))]
            for shard in range(shards)
        ]
        spool.close()

    def indexes(self) -> list[LexicalIndex]:
        """Loads the index of each shard."""
        vocabulary = Vocabulary.load(self.folder)
        return [
            LexicalIndex.load(shard_folder(self.folder, shard), vocabulary, len(names))
            for shard, names in enumerate(self.names)
        ]

    def search(self, query: str) -> Found:
        """Returns the score of every chunk that a query finds."""
        found: Found = {}
        for index, names in zip(self.indexes(), self.names, strict=True):
            rows, scores = index.search(query, 1_000)
            order = np.lexsort((rows, -scores))
            assert np.array_equal(order, np.arange(len(rows)))
            found |= {names[r]: s for r, s in zip(rows.tolist(), scores.tolist(), strict=True)}
        return found

    def scores(self, query: str) -> Found:
        """Returns the BM25 score of every chunk with a word of a query."""
        return self._positive("scores", query)

    def levels(self, query: str) -> Found:
        """Returns the level of every chunk whose title matches a query."""
        return self._positive("title_levels", query)

    def _positive(self, name: str, query: str) -> Found:
        found: Found = {}
        for index, names in zip(self.indexes(), self.names, strict=True):
            # In another order than that of the rows.
            values = getattr(index, name)(query, np.arange(len(names))[::-1])[::-1].tolist()
            found |= {one: v for one, v in zip(names, values, strict=True) if v}
        return found
