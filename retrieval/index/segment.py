"""A segment of a shard: searches, reads and counts the documents that it contains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearline.contract import (
    Filter,
    HitLevel,
    Item,
    PayloadField,
    Scalar,
    SearchCost,
    SearchMode,
    Suggestion,
)
from nearline.filters import All, Exists
from nearline.items.structure import section_at
from retrieval.index.filtering.planner import Matches
from retrieval.index.hit_builder import HitBuilder
from retrieval.index.legs import DenseRows, LegOptions, Legs
from retrieval.index.protocols import Documents, WordIndex
from retrieval.index.suggestions import suggest_titles
from retrieval.index.top_units import TopRows, UnitOf
from retrieval.index.vectors.vector_index import SearchParams, VectorIndex
from retrieval.protocols.compute_threads import Stopped
from retrieval.protocols.shard import (
    LexicalColumns,
    ShardCounts,
    ShardFilterPlan,
    ShardHits,
    ShardOptions,
    ShardQueries,
)

if TYPE_CHECKING:
    # Imported late: a router without local shards runs without Arrow.
    from retrieval.index.attributes import SegmentAttributes
    from retrieval.index.gpu.gpu_pool import PlacedIndex
    from retrieval.index.lexical.word_matcher import WordMatcher

_NO_ROWS = np.empty(0, np.int64)


class Segment:
    """Documents that are searched together; blocks, and may be used from several threads.

    In all methods `alive` restricts the documents to those that are not hidden; None means all.

    Args:
        index: The vectors.
        items: Documents; index row r is a chunk of document `items.documents_of(r)`.
        attributes: Evaluates filters.
        words: The word index; None if the snapshot has none.
        unit_length: Whether stored vectors have unit length (metric cosine).
        gpu: The place of the vectors on GPUs. Optional; see `Legs`.
    """

    def __init__(
        self,
        index: VectorIndex,
        items: Documents,
        attributes: SegmentAttributes,
        words: WordIndex | None,
        *,
        unit_length: bool,
        gpu: PlacedIndex | None = None,
    ) -> None:
        self.index = index
        self._gpu = gpu
        self.items = items
        self._attributes = attributes
        self._words = words
        self._builder = HitBuilder(index, items, attributes)
        self._legs = Legs(index, items, attributes, words, gpu)
        self._unit_length = unit_length
        # Rows to search for at first, per requested document.
        mean = -(-items.chunks // max(1, items.documents))
        self._chunks_per_document = min(items.max_chunks, 2 * mean)

    @property
    def on_gpu(self) -> bool:
        """Whether the vectors are on GPUs, which may be away."""
        return self._gpu is not None

    @property
    def scans_on_gpu(self) -> bool:
        """Whether an exact search is computed on GPUs now."""
        return self._gpu is not None and self._gpu.scans

    def search(
        self, queries: ShardQueries, options: ShardOptions, alive: Matches | None = None
    ) -> list[ShardHits]:
        """Searches; see `Shard.search`. The caller enforces a watermark in the options."""
        if self.items.chunks == 0:
            return [ShardHits((), (), (), (), ()) for _ in range(queries.count)]
        leg_options = self._leg_options(options, alive)
        if options.mode is SearchMode.LEXICAL:
            return self._with_terms(self._lexical(queries, leg_options, options), queries, options)
        start = time.perf_counter()
        if options.mode is SearchMode.HYBRID:
            results, dense = self._candidates(queries, leg_options, options)
            results = self._with_terms(results, queries, options)
        else:
            dense = self._legs.dense(queries.vectors, leg_options)
            results = self._builder.hits(dense.found, options, dense.plan)
        if options.exact or dense.fallback:
            seconds = (time.perf_counter() - start) / len(results)
            among = leg_options.among
            compared = self.items.chunks if among is None else among.count
            for hits in results:
                hits.fallback = dense.fallback
                if options.exact:
                    hits.cost = SearchCost(comparisons=compared, compute_s=seconds, gpu=dense.gpu)
        return results

    def fetch(
        self,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        chunks: Sequence[int] = (),
        filter: Filter | None = None,
        alive: Matches | None = None,
        stopped: Stopped = lambda: False,
    ) -> list[Item | None]:
        """Reads items by id, see `Shard.fetch`; None for items that are absent or do not match.

        Ends early, with fewer items, once `stopped` returns True.

        Raises: InvalidRequest: the filter names an unknown attribute or a value of another kind.
        """
        items = self.items
        readable = self._documents(filter, alive)
        found: list[Item | None] = []
        for place, document_id in enumerate(ids):
            if stopped():
                break
            document = items.find(document_id)
            chunk = chunks[place] if chunks else None
            if (
                document is None
                or (readable is not None and not readable[document])
                or (chunk is not None and chunk >= len(items.rows_of(document)))
            ):
                found.append(None)
            else:
                found.append(self._item(document_id, document, payload, chunk))
        return found

    def scan(
        self,
        after_id: str,
        filter: Filter | None,
        payload: frozenset[PayloadField],
        alive: Matches | None = None,
    ) -> Iterator[Item]:
        """Returns the matching items after an id, in id order; each is read when it is consumed.

        Raises (immediately): InvalidRequest: the filter names an unknown attribute or a value of
            another kind.
        """
        items = self.items
        documents: Iterable[int] = items.following(after_id)
        matching = self._documents(filter, alive)
        if matching is not None:
            # Indexing bytes is several times as fast as indexing an array.
            selected = matching.tobytes()
            documents = (document for document in documents if selected[document])
        return (self._item(items.id(document), document, payload, None) for document in documents)

    def suggest(
        self, text: str, limit: int, filter: Filter | None, alive: Matches | None = None
    ) -> list[Suggestion]:
        """Returns documents whose titles complete a text, best first; see `Shard.suggest`.

        Raises: InvalidRequest: the filter names an unknown attribute or a value of another kind.
            Unsupported: there is no lexical index of titles.
        """
        among = alive
        if filter is not None:
            among = self._attributes.matches(filter)
            among = among if alive is None else among.among(alive)
        allow = None if among is None else among.chunks
        return suggest_titles(text, limit, self.items, self._legs.needed_words(), allow)

    def matcher(self, text: str, chunks: int) -> WordMatcher | None:
        """Returns what finds the words of a query in texts; None without a lexical index."""
        return None if self._words is None else self._words.matcher(text, chunks)

    def correction(self, text: str) -> str:
        """Returns a text with known words in place of unknown ones; empty if none is.

        Raises: Unsupported: there is no lexical index.
        """
        return self._legs.needed_words().correction(text)

    def count(
        self,
        filter: Filter | None,
        fields: Sequence[str],
        alive: Matches | None = None,
        stopped: Stopped = lambda: False,
    ) -> ShardCounts:
        """Counts the matching items, and the values of attributes among them.

        Counts nothing more once `stopped` returns True.

        Raises: InvalidRequest: the filter names an unknown attribute or a value of another kind.
        """
        matching = self._documents(filter, alive)
        if matching is None:
            matching = np.ones(self.items.documents, np.bool_)
        counts = [self._attributes.counts(field, matching) for field in fields if not stopped()]
        return ShardCounts(int(np.count_nonzero(matching)), counts)

    def may_match(self, filter: Filter, alive: Matches | None = None) -> NDArray[np.bool_]:
        """Returns which documents match, or were changed since and may match: (documents,) bool.

        Raises: as `count`.
        """
        matching = self._attributes.matches(filter).documents
        return matching if alive is None else matching | ~alive.documents

    def popularity(self, document: int) -> float:
        """Returns the popularity of a document, 0..1; 0 if it is unknown."""
        if self._words is None:
            return 0.0
        return self._words.popularity(int(self.items.rows_of(document)[0]))

    def _documents(self, filter: Filter | None, alive: Matches | None) -> NDArray[np.bool_] | None:
        """Returns which documents match and are alive: (documents,) bool; None if all do."""
        if filter is None:
            return None if alive is None else alive.documents
        matching = self._attributes.matches(filter).documents
        return matching if alive is None else matching & alive.documents

    def _leg_options(self, options: ShardOptions, alive: Matches | None) -> LegOptions:
        filter, units = options.filter, self.items.chunks
        unit_of: UnitOf | None = None
        first_limit, field = options.k, ""
        if options.level is HitLevel.DOCUMENT:
            units = self.items.documents
            if self.items.max_chunks > 1:
                unit_of = self.items.documents_of
                first_limit = options.k * self._chunks_per_document
        if options.grouping is not None and options.mode is not SearchMode.HYBRID:
            field = options.grouping.field
            filter = Exists(field) if filter is None else All(filter, Exists(field))
            if not options.boosts:
                unit_of = partial(self._group_numbers, field, {})
                first_limit = 4 * options.k
        matches = None if filter is None else self._attributes.matches(filter)
        if matches is not None and alive is not None:
            matches = matches.among(alive)
        most_groups: Callable[[], int] | None = None
        if field and matches is not None and not options.boosts:
            most_groups = partial(self._attributes.most_values, field, matches.documents)
        return LegOptions(
            min(options.k, units),
            SearchParams(options.ef_search, options.nprobe, options.exact),
            unit_of,
            first_limit,
            matches,
            alive,
            most_groups,
        )

    def _group_numbers(
        self, field: str, known: dict[Scalar, int], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        numbers = [
            known.setdefault(value, len(known)) for value in self._builder.groups(field, rows)
        ]
        return np.array(numbers, np.int64)

    def _lexical(
        self, queries: ShardQueries, leg_options: LegOptions, options: ShardOptions
    ) -> list[ShardHits]:
        found = self._legs.lexical(queries.texts, leg_options)
        plan: ShardFilterPlan | None = None
        if leg_options.matches is not None:
            plan = self._attributes.word_plan(leg_options.matches)
        results = self._builder.hits(found, options, plan)
        if options.boosts:
            words = self._legs.needed_words()
            for hits, text, one in zip(results, queries.texts, found, strict=True):
                levels = words.title_levels(text, one.rows)
                hits.title_scores = (levels * np.float32(words.title_score(text))).tolist()
        return results

    def _candidates(
        self, queries: ShardQueries, leg_options: LegOptions, options: ShardOptions
    ) -> tuple[list[ShardHits], DenseRows]:
        documents = options.level is HitLevel.DOCUMENT
        found, dense = self._legs.candidates(queries, leg_options, documents=documents)
        plain = options._replace(payload=frozenset())
        results = self._builder.hits(
            [TopRows(each.rows, each.scores) for each in found], plain, dense.plan
        )
        for hits, each in zip(results, found, strict=True):
            rows = each.lexical_rows
            of = self.items.documents_of(rows)
            hits.lexical = LexicalColumns(
                each.lexical_scores.tolist(),
                *self.items.chunks_of(rows, of),
                each.title_levels.tolist(),
                each.title_score,
            )
        return results, dense

    def _with_terms(
        self, results: list[ShardHits], queries: ShardQueries, options: ShardOptions
    ) -> list[ShardHits]:
        """Adds the words of the queries if hits are to be explained."""
        if options.explain and options.mode is not SearchMode.DENSE and self._words is not None:
            for hits, text in zip(results, queries.texts, strict=True):
                hits.terms = self._words.terms(text)
        return results

    def _item(
        self, document_id: str, document: int, payload: frozenset[PayloadField], chunk: int | None
    ) -> Item:
        items = self.items
        wanted = PayloadField.TEXT in payload
        text = items.text(document) if wanted or PayloadField.SECTION in payload else ""
        section: Sequence[str] = ()
        rows = _NO_ROWS
        if chunk is not None or PayloadField.VECTOR in payload:
            rows = items.rows_of(document)
        if chunk is not None:
            rows = rows[chunk : chunk + 1]
            if text:
                _, starts, ends = items.chunks_of(rows, np.array([document]))
                if PayloadField.SECTION in payload:
                    section = section_at(text, starts[0])
                text = text[starts[0] : ends[0]]
        return Item(
            id=document_id,
            title=items.title(document) if PayloadField.TITLE in payload else "",
            text=text if wanted else "",
            attributes=items.attributes(document) if PayloadField.ATTRIBUTES in payload else {},
            vector=self._vector(rows) if PayloadField.VECTOR in payload else None,
            expires=items.expires(document),
            version=items.version(document),
            section=section,
        )

    def _vector(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if len(rows) == 0:
            return None
        mean: NDArray[np.float32] = self.index.reconstruct(rows).mean(axis=0)
        norm = float(np.linalg.norm(mean))
        return mean / np.float32(norm) if self._unit_length and norm > 0 else mean
