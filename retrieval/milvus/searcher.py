"""Searches a Milvus collection by vector, by words, or by both."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import HitLevel, PayloadField, PlanStrategy, SearchMode
from nearline.errors import Unsupported
from nearline.filters import All, Exists
from retrieval.index.boosts import boost_values
from retrieval.index.filtering.validation import unknown_attribute_error
from retrieval.index.lexical.bm25_index import title_score
from retrieval.index.lexical.document_words import TitleWords, WordCounter
from retrieval.index.lexical.language_words import Alternative
from retrieval.index.lexical.title_index import Titles, match_titles
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.lexical.word_matcher import WordMatcher
from retrieval.milvus.layout import MilvusHit
from retrieval.milvus.reader import MilvusReader
from retrieval.milvus.rows import attribute_values, first_attribute_value, parse_attributes
from retrieval.milvus.top_units import (
    FindMatching,
    FindRows,
    RankedRow,
    UnitOf,
    chunk_of,
    complete_scores,
    document_of,
    find_top_units,
)
from retrieval.milvus.vector_leg import VectorIndexInfo, VectorLeg
from retrieval.protocols.shard import (
    HitPayload,
    LexicalColumns,
    ShardFilterPlan,
    ShardHits,
    ShardOptions,
    ShardQueries,
)

_CACHED_TITLES = 16_384
_CACHED_WORDS = 65_536


class TitleLevels:
    """Compares titles with queries; see `match_titles`. Their popularity is unknown.

    Args:
        vocabulary: The words of the snapshot.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        analyser = vocabulary.analyser
        stem = lru_cache(_CACHED_WORDS)(lambda word: analyser.stems([word])[0])
        counter: WordCounter[str] = WordCounter(analyser, stem, {})

        def words_of(title: str) -> TitleWords[str]:
            return counter.document(title, {}).title

        self._words_of = lru_cache(_CACHED_TITLES)(words_of)

    def levels(self, text: str, titles: Sequence[str]) -> NDArray[np.float32]:
        """Returns the level of each title: (n,) float32, 0 for those that do not match."""
        query = self._vocabulary.query(text)
        if not query.is_title or not titles:
            return np.zeros(len(titles), np.float32)
        found = list(map(self._words_of, titles))
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(found):
            for word in title.words:
                rows.setdefault(word, []).append(row)

        def rows_of(word: Alternative) -> NDArray[np.int32]:
            return np.array(rows.get(word.word, ()), np.int32)

        most = np.iinfo(np.uint16).max
        matches = match_titles(
            query,
            Titles(
                rows_of,
                lambda prefix: [],
                np.array([min(title.content, most) for title in found], np.uint16),
                np.array([title.key for title in found], np.uint64),
            ),
        )
        return matches.at(np.arange(len(titles)))


# The rows whose titles a lexical search compares with the query: the best by their words. The
# number does not depend on the hits asked for, so that fewer hits are the first of more.
_TITLES = 100
# Field of a found row with what its title adds to its score.
_TITLE_SCORE = "title_score"
# Rows requested per group at first.
_PER_GROUP = 4
# Field of a row that holds each part of a payload.
PAYLOAD_FIELDS = {
    PayloadField.TITLE: "title",
    PayloadField.TEXT: "passage",
    PayloadField.ATTRIBUTES: "attributes",
    PayloadField.VECTOR: "vector",
    # A row has not the headings above it, so its section is empty.
    PayloadField.SECTION: "passage",
}


class _LegQuery(NamedTuple):
    """The search of a leg; see `find_top_units`."""

    k: int
    first_ask: int
    unit_of: UnitOf
    expression: str
    fields: Sequence[str]
    ef_search: int
    deadline: float | None


class MilvusSearcher:
    """Searches a Milvus collection; see `Shard.search`.

    Args:
        reader: Reads the collection.
        info: Index and size of the collection.
        vocabulary: Splits texts into words. If None, the collection has no lexical search.
    """

    def __init__(
        self, reader: MilvusReader, info: VectorIndexInfo, vocabulary: Vocabulary | None
    ) -> None:
        self._reader = reader
        self._info = info
        self._vocabulary = vocabulary
        self._titles = None if vocabulary is None else TitleLevels(vocabulary)
        self._leg = VectorLeg(reader, info)

    async def search(
        self, queries: ShardQueries, options: ShardOptions, deadline: float | None
    ) -> list[ShardHits]:
        """Searches; the caller waits for the watermark of the options."""
        self._check(options)
        kinds = self._reader.kinds
        query = self._leg_query(options, deadline)
        plan = self._plan(options, query)
        if options.mode is SearchMode.HYBRID:
            return await self._candidates(queries, query, options, plan)
        if options.mode is SearchMode.LEXICAL:
            found = await self._lexical(queries.texts, query, by_title=True)
        else:
            found = await self._dense(queries, query)
        return [rows_to_hits(rows, options, kinds, plan) for rows in found]

    def matcher(self, text: str, chunks: int) -> WordMatcher | None:
        """Returns what finds the words of a query in texts; None without a lexical search."""
        vocabulary = self._vocabulary
        if vocabulary is None:
            return None
        return WordMatcher.of(vocabulary, vocabulary.query(text), chunks)

    def _check(self, options: ShardOptions) -> None:
        info = self._info
        if options.mode is not SearchMode.DENSE and self._vocabulary is None:
            raise Unsupported(
                f"mode {options.mode.value} needs Milvus 2.5 or newer, which has BM25, and a "
                f"snapshot that was exported with its words; the server is {info.version}: use "
                "mode dense",
                field="options.mode",
            )
        if options.mode is not SearchMode.LEXICAL:
            kind = "FLAT" if info.flat else "HNSW"
            for name in ("nprobe", "ef_search") if info.flat else ("nprobe",):
                if getattr(options, name):
                    raise Unsupported(
                        f"the index (Milvus {kind}) does not support {name}; leave "
                        f"options.{name} unset",
                        field=f"options.{name}",
                    )
            if options.exact and not info.flat:
                raise Unsupported(
                    "the index (Milvus HNSW) does not support exact; leave options.exact unset, or "
                    "export the snapshot with --index FLAT",
                    field="options.exact",
                )
        kinds = self._reader.kinds
        if options.grouping is not None and options.grouping.field not in kinds:
            raise unknown_attribute_error(
                options.grouping.field, list(kinds), "options.grouping.field"
            )

    def _leg_query(self, options: ShardOptions, deadline: float | None) -> _LegQuery:
        filter, grouping = options.filter, options.grouping
        unit_of: UnitOf = chunk_of
        first_ask = options.k
        if options.level is HitLevel.DOCUMENT:
            unit_of = document_of
            first_ask = options.k * self._info.chunks_per_document
        names = {"start", "stop"}
        if options.mode is not SearchMode.DENSE:
            names.add("title")
        if options.mode is not SearchMode.HYBRID:
            names |= {PAYLOAD_FIELDS[part] for part in options.payload}
        if grouping is not None or options.boosts:
            names.add("attributes")
        if grouping is not None and options.mode is not SearchMode.HYBRID:
            has_group = Exists(grouping.field)
            filter = has_group if filter is None else All(filter, has_group)
            if not options.boosts:
                unit_of = self._group_of(grouping.field)
                first_ask = _PER_GROUP * options.k
        return _LegQuery(
            options.k,
            first_ask,
            unit_of,
            self._reader.matching(filter),
            sorted(names),
            options.ef_search or self._info.ef_search,
            deadline,
        )

    def _group_of(self, field: str) -> UnitOf:
        kind = self._reader.kinds[field]
        return lambda row: first_attribute_value(row.fields["attributes"], field, kind)

    def _plan(self, options: ShardOptions, query: _LegQuery) -> ShardFilterPlan | None:
        if options.filter is None and (
            options.grouping is None or options.mode is SearchMode.HYBRID
        ):
            return None
        dense = options.mode is not SearchMode.LEXICAL and not self._info.flat
        return ShardFilterPlan(
            PlanStrategy.BACKEND,
            0,
            self._info.chunks,
            query.ef_search if dense else 0,
            f"Milvus {self._info.version} applies the filter inside its search and does not report "
            "the number of matches",
        )

    async def _dense(self, queries: ShardQueries, query: _LegQuery) -> list[list[RankedRow]]:
        return await find_top_units(
            self._dense_finder(queries.vectors, query),
            len(queries.vectors),
            query.k,
            first_ask=query.first_ask,
            unit_of=query.unit_of,
            exact=self._info.flat,
        )

    def _dense_finder(self, vectors: NDArray[np.float32], query: _LegQuery) -> FindRows:
        async def find(places: Sequence[int], ask: int) -> list[list[MilvusHit]]:
            selected = vectors if len(places) == len(vectors) else vectors[list(places)]
            return await self._leg.search(
                selected, ask, query.expression, query.fields, query.ef_search, query.deadline
            )

        return find

    async def _lexical(
        self, texts: Sequence[str], query: _LegQuery, *, by_title: bool = False
    ) -> list[list[RankedRow]]:
        """Returns the best units by words.

        Args:
            by_title: Whether titles that match count more than all words; else scores are BM25.
        """
        words = [self._analysed(text) for text in texts]

        async def find(places: Sequence[int], ask: int) -> list[list[MilvusHit]]:
            some = [place for place in places if words[place]]
            found: dict[int, list[MilvusHit]] = {}
            if some:
                results = await self._reader.search_words(
                    [words[place] for place in some],
                    ask,
                    query.expression,
                    query.fields,
                    query.deadline,
                )
                found = dict(zip(some, results, strict=True))
            if by_title:
                named = [self._by_title(texts[place], rows) for place, rows in found.items()]
                found = dict(zip(found, await asyncio.gather(*named), strict=True))
            return [found.get(place, []) for place in places]

        return await find_top_units(
            find,
            len(texts),
            query.k,
            first_ask=max(query.first_ask, _TITLES) if by_title else query.first_ask,
            unit_of=query.unit_of,
            exact=True,
        )

    async def _by_title(self, text: str, rows: list[MilvusHit]) -> list[MilvusHit]:
        """Returns rows, best first, with the scores of their titles added."""
        assert self._vocabulary is not None
        levels = await self._levels(text, rows[:_TITLES])
        if not any(levels):
            return rows
        unit = float(title_score(self._vocabulary.query(text)))
        named = [
            row._replace(
                score=row.score + level * unit, fields={**row.fields, _TITLE_SCORE: level * unit}
            )
            for row, level in zip(rows, levels, strict=False)
        ]
        return [*named, *rows[_TITLES:]]

    async def _levels(self, text: str, rows: Sequence[MilvusHit | RankedRow]) -> list[float]:
        """Returns how well the title of each row matches; milliseconds if the titles are new."""
        assert self._titles is not None
        titles = [row.fields["title"] for row in rows]
        levels = await asyncio.to_thread(self._titles.levels, text, titles)
        return [float(level) for level in levels]

    async def _candidates(
        self,
        queries: ShardQueries,
        query: _LegQuery,
        options: ShardOptions,
        plan: ShardFilterPlan | None,
    ) -> list[ShardHits]:
        dense, lexical = await asyncio.gather(
            self._dense(queries, query), self._lexical(queries.texts, query)
        )
        completed = await asyncio.gather(
            *(
                complete_scores(
                    dense[place],
                    lexical[place],
                    chunks=self._info.chunks_per_document,
                    unit_of=query.unit_of,
                    find_dense=self._dense_matcher(queries, place, query),
                    find_words=self._lexical_matcher(queries.texts[place], query),
                )
                for place in range(queries.count)
            )
        )
        assert self._vocabulary is not None
        results = []
        plain, kinds = options._replace(payload=frozenset()), self._reader.kinds
        for text, found in zip(queries.texts, completed, strict=True):
            hits = rows_to_hits([one.dense for one in found], plain, kinds, plan)
            by_words = [one.lexical for one in found]
            hits.lexical = LexicalColumns(
                [-row.negated for row in by_words],
                [row.chunk for row in by_words],
                [row.fields["start"] for row in by_words],
                [row.fields["stop"] for row in by_words],
                await self._levels(text, by_words),
                float(title_score(self._vocabulary.query(text))),
            )
            results.append(hits)
        return results

    def _dense_matcher(self, queries: ShardQueries, place: int, query: _LegQuery) -> FindMatching:
        vector = queries.vectors[place : place + 1]

        async def find(ask: int, expression: str) -> Sequence[MilvusHit]:
            (found,) = await self._leg.search(
                vector, ask, expression, query.fields, query.ef_search, query.deadline
            )
            return found

        return find

    def _lexical_matcher(self, text: str, query: _LegQuery) -> FindMatching:
        words = self._analysed(text)

        async def find(ask: int, expression: str) -> Sequence[MilvusHit]:
            if not words:
                return ()
            (found,) = await self._reader.search_words(
                [words], ask, expression, query.fields, query.deadline
            )
            return found

        return find

    def _analysed(self, text: str) -> str:
        assert self._vocabulary is not None
        return " ".join(self._vocabulary.words(text))


def rows_to_hits(
    rows: Sequence[RankedRow],
    options: ShardOptions,
    kinds: Mapping[str, str],
    plan: ShardFilterPlan | None,
) -> ShardHits:
    """Returns the hits of one query.

    Args:
        rows: Rows, best first, with start, stop and the fields that the options need.
        options: Options of the search.
        kinds: Kinds of the attributes, by name.
        plan: How the filter was applied; None without a filter.
    """
    fields = [row.fields for row in rows]
    hits = ShardHits(
        [row.id for row in rows],
        [-row.negated for row in rows],
        [row.chunk for row in rows],
        [one["start"] for one in fields],
        [one["stop"] for one in fields],
    )
    hits.plan = plan
    if options.payload:
        hits.payloads = [_payload(row, options.payload, kinds) for row in rows]
    if options.grouping is not None:
        name = options.grouping.field
        hits.groups = [
            first_attribute_value(one["attributes"], name, kinds[name]) for one in fields
        ]
    if options.boosts:
        columns = [
            boost_values(
                boost,
                [
                    attribute_values(one["attributes"], boost.field, kinds[boost.field])
                    for one in fields
                ],
            )
            for boost in options.boosts
        ]
        hits.boosts = list(zip(*columns, strict=True))
        if options.mode is SearchMode.LEXICAL:
            hits.title_scores = [one.get(_TITLE_SCORE, 0.0) for one in fields]
    return hits


def _payload(
    row: RankedRow, payload: frozenset[PayloadField], kinds: Mapping[str, str]
) -> HitPayload:
    fields = row.fields
    return HitPayload(
        fields["title"] if PayloadField.TITLE in payload else None,
        fields["passage"] if PayloadField.TEXT in payload else None,
        parse_attributes(fields["attributes"], kinds)
        if PayloadField.ATTRIBUTES in payload
        else None,
        np.array(fields["vector"], np.float32) if PayloadField.VECTOR in payload else None,
    )
