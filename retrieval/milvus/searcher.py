"""Searches a Milvus collection by vector, by words, or by both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import HitLevel, PayloadField, PlanStrategy, SearchMode
from nearline.errors import Unsupported
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.lexical.word_matcher import WordMatcher
from retrieval.index.top_units import WideningSearch
from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import MAX_ROWS, MilvusHit, make_key, parse_key
from retrieval.milvus.reader import MilvusReader, in_batches
from retrieval.milvus.rows import parse_attributes
from retrieval.protocols.shard import (
    HitPayload,
    LexicalColumns,
    ShardFilterPlan,
    ShardHits,
    ShardOptions,
    ShardQueries,
)

# Maximum width of a graph search in Milvus.
_MAX_EF = 32_768
# Rows requested in addition to the wanted number, to include rows tied with the last one.
_TIE_SLACK = 4
# Field of a row that holds each part of a payload.
_PAYLOAD_FIELDS = {
    PayloadField.TITLE: "title",
    PayloadField.TEXT: "passage",
    PayloadField.ATTRIBUTES: "attributes",
    PayloadField.VECTOR: "vector",
    # A row has not the headings above it, so its section is empty.
    PayloadField.SECTION: "passage",
}
# Finds the best rows of a leg: (places of queries, rows per query, expression) -> rows of each;
# fewer rows than requested only if no more match.
FindRows = Callable[[Sequence[int], int, str], Awaitable[Sequence[Sequence[MilvusHit]]]]


class VectorIndexInfo(NamedTuple):
    """Index and size of a collection.

    version: Version of the server.
    flat: Whether the index compares every vector; otherwise it is HNSW.
    ef_search: Default width of a graph search.
    chunks: Number of chunks of the snapshot.
    chunks_per_document: Rows to request per document at first.
    lite: Whether the server is Milvus Lite.
    """

    version: str
    flat: bool
    ef_search: int
    chunks: int
    chunks_per_document: int
    lite: bool = False


class RankedRow(NamedTuple):
    """A found row; rows sort like hits: best score, then document id, then chunk.

    negated: Negated score.
    fields: The fields requested.
    """

    negated: float
    id: str
    chunk: int
    fields: Mapping[str, Any]

    def unit(self, level: HitLevel) -> Hashable:
        """Returns what hits of a level have once: a document, or a chunk."""
        return self.id if level is HitLevel.DOCUMENT else (self.id, self.chunk)


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

    async def search(
        self, queries: ShardQueries, options: ShardOptions, deadline: float | None
    ) -> list[ShardHits]:
        """Searches; the caller waits for the watermark of the options."""
        self._check(options)
        expression = self._reader.matching(options.filter)
        plan = None if options.filter is None else self._plan(options)
        legs: list[FindRows] = []
        if options.mode is not SearchMode.LEXICAL:
            legs.append(self._dense_leg(queries.vectors, options, deadline))
        if options.mode is not SearchMode.DENSE:
            legs.append(self._lexical_leg(queries.texts, options, deadline))
        found = await asyncio.gather(
            *(self._best(leg, queries.count, expression, options) for leg in legs)
        )
        if len(legs) == 1:
            return [rows_to_hits(rows, options, self._reader.kinds, plan) for rows in found[0]]
        dense, lexical = legs
        return await asyncio.gather(
            *(
                self._candidates(place, by_vector, by_words, dense, lexical, options, plan)
                for place, (by_vector, by_words) in enumerate(zip(*found, strict=True))
            )
        )

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
        for name in ("grouping", "boosts"):
            if getattr(options, name):
                raise Unsupported(
                    f"{name} is not supported over Milvus; leave options.{name} unset, or serve "
                    "the collection from FAISS shards",
                    field=f"options.{name}",
                )
        if options.mode is SearchMode.LEXICAL:
            return
        kind = "FLAT" if info.flat else "HNSW"
        for name in ("nprobe", "ef_search" if info.flat else "exact"):
            if getattr(options, name):
                remedy = "" if info.flat else ", or export the snapshot with --index FLAT"
                raise Unsupported(
                    f"the index (Milvus {kind}) does not support {name}; leave options.{name} "
                    f"unset{remedy if name == 'exact' else ''}",
                    field=f"options.{name}",
                )

    def _plan(self, options: ShardOptions) -> ShardFilterPlan:
        graph = options.mode is not SearchMode.LEXICAL and not self._info.flat
        return ShardFilterPlan(
            PlanStrategy.BACKEND,
            0,
            self._info.chunks,
            (options.ef_search or self._info.ef_search) if graph else 0,
            f"Milvus {self._info.version} applies the filter inside its search and does not report "
            "the number of matches",
        )

    def _dense_leg(
        self, vectors: NDArray[np.float32], options: ShardOptions, deadline: float | None
    ) -> FindRows:
        fields = _fields(options)

        async def find(
            places: Sequence[int], ask: int, expression: str
        ) -> Sequence[Sequence[MilvusHit]]:
            some = vectors[list(places)]
            if self._info.flat:
                return await self._reader.search(some, ask, expression, fields, None, deadline)
            # Milvus rejects a width below the number of rows.
            ef = max(options.ef_search or self._info.ef_search, ask)
            if self._info.lite and expression:
                # Servers filter while they search; Lite filters the `ef` rows that it visited.
                matches = await self._reader.count(expression, deadline)
                ef = min(max(ef, ef * self._info.chunks // max(1, matches)), _MAX_EF)
            found = await self._reader.search(some, ask, expression, fields, ef, deadline)
            short = [at for at, rows in enumerate(found) if len(rows) < ask]
            if short and ef < _MAX_EF:
                # Either no more rows match, or non-matching rows cut off the graph search.
                wide = await self._reader.search(
                    some[short], ask, expression, fields, _MAX_EF, deadline
                )
                for at, rows in zip(short, wide, strict=True):
                    found[at] = rows
            return found

        return find

    def _lexical_leg(
        self, texts: Sequence[str], options: ShardOptions, deadline: float | None
    ) -> FindRows:
        assert self._vocabulary is not None
        words = [" ".join(self._vocabulary.words(text)) for text in texts]
        fields = _fields(options)

        async def find(
            places: Sequence[int], ask: int, expression: str
        ) -> Sequence[Sequence[MilvusHit]]:
            some = [place for place in places if words[place]]
            if not some:
                return [()] * len(places)
            texts = [words[place] for place in some]
            rows = await self._reader.search(texts, ask, expression, fields, None, deadline)
            found = dict(zip(some, rows, strict=True))
            return [found.get(place, ()) for place in places]

        return find

    async def _best(
        self, leg: FindRows, count: int, expression: str, options: ShardOptions
    ) -> list[list[RankedRow]]:
        per_unit = self._info.chunks_per_document if options.level is HitLevel.DOCUMENT else 1
        return await find_top_units(
            leg,
            range(count),
            options.k,
            expression,
            first_ask=options.k * per_unit,
            level=options.level,
            exact=self._info.flat or options.mode is not SearchMode.DENSE,
        )

    async def _candidates(
        self,
        place: int,
        by_vector: Sequence[RankedRow],
        by_words: Sequence[RankedRow],
        dense: FindRows,
        lexical: FindRows,
        options: ShardOptions,
        plan: ShardFilterPlan | None,
    ) -> ShardHits:
        """Returns the candidates of one query, with the scores that only the other leg found.

        A candidate without a word of the query has the lexical score 0.
        """
        level = options.level
        vectors = {row.unit(level): row for row in by_vector}
        words = {row.unit(level): row for row in by_words}
        more_vectors, more_words = await asyncio.gather(
            self._of_units(
                [row for unit, row in words.items() if unit not in vectors], dense, place, level
            ),
            self._of_units(
                [row for unit, row in vectors.items() if unit not in words], lexical, place, level
            ),
        )
        vectors |= {row.unit(level): row for row in more_vectors}
        words |= {row.unit(level): row for row in more_words}
        plain = options._replace(payload=frozenset())
        hits = rows_to_hits([*vectors.values()], plain, self._reader.kinds, plan)
        found = [words.get(unit) or row._replace(negated=0.0) for unit, row in vectors.items()]
        hits.lexical = LexicalColumns(
            [-row.negated for row in found],
            [row.chunk for row in found],
            [row.fields["start"] for row in found],
            [row.fields["stop"] for row in found],
            [0.0] * len(found),
        )
        return hits

    async def _of_units(
        self, rows: Sequence[RankedRow], leg: FindRows, place: int, level: HitLevel
    ) -> list[RankedRow]:
        """Returns the best row by a leg in the document or chunk of each of some rows."""
        if level is HitLevel.DOCUMENT:
            field, per_unit = "document", self._info.chunks_per_document
            units = list(dict.fromkeys(row.id for row in rows))
        else:
            field, per_unit = "key", 1
            units = [make_key(row.id, row.chunk) for row in rows]
        found = await asyncio.gather(
            *(
                find_top_units(
                    leg,
                    [place],
                    len(batch),
                    any_of(field, batch),
                    first_ask=len(batch) * per_unit,
                    level=level,
                    exact=True,
                )
                for batch in in_batches(units)
            )
        )
        return [row for (best,) in found for row in best]


async def find_top_units(
    find: FindRows,
    places: Sequence[int],
    k: int,
    expression: str,
    *,
    first_ask: int,
    level: HitLevel,
    exact: bool,
) -> list[list[RankedRow]]:
    """Returns, per query, the best row of each of the k best units, in the order of hits.

    Widens the search until it returns k units, fewer rows than requested, or MAX_ROWS rows.

    Args:
        find: Finds rows.
        places: Places of the queries.
        k: Number of units, >= 1.
        expression: Condition on the rows; empty matches all.
        first_ask: Rows to request at first.
        level: What a unit is.
        exact: Whether `find` is exact, so that ties must be resolved exactly as well.
    """
    first_limit = max(k, first_ask) + (_TIE_SLACK if exact else 0)
    search = WideningSearch[list[RankedRow]](len(places), first_limit, MAX_ROWS)

    def best_units(found: Sequence[MilvusHit]) -> list[RankedRow] | None:
        rows = sorted(RankedRow(-one.score, *parse_key(one.key), one.fields) for one in found)
        firsts: dict[Hashable, RankedRow] = {}
        for row in rows:
            firsts.setdefault(row.unit(level), row)
        best = list(firsts.values())[:k]
        whole = len(rows) < search.limit or search.at_max_limit
        if whole or (len(best) == k and not (exact and best[-1].negated == rows[-1].negated)):
            return best
        return None

    while search.pending:
        pending = [places[at] for at in search.pending]
        search.record(map(best_units, await find(pending, search.limit, expression)))
    return search.results


def rows_to_hits(
    rows: Sequence[RankedRow],
    options: ShardOptions,
    kinds: Mapping[str, str],
    plan: ShardFilterPlan | None,
) -> ShardHits:
    """Returns the hits of one query.

    Args:
        rows: Rows, best first, with start, stop and the fields of the payload.
        options: Options of the search.
        kinds: Kinds of the attributes, by name.
        plan: How the filter was applied; None without a filter.
    """
    hits = ShardHits(
        [row.id for row in rows],
        [-row.negated for row in rows],
        [row.chunk for row in rows],
        [row.fields["start"] for row in rows],
        [row.fields["stop"] for row in rows],
    )
    hits.plan = plan
    if options.payload:
        hits.payloads = [_payload(row.fields, options.payload, kinds) for row in rows]
    return hits


def _fields(options: ShardOptions) -> Sequence[str]:
    """Returns the fields to read of each row; hybrid candidates carry no payload."""
    payload = frozenset() if options.mode is SearchMode.HYBRID else options.payload
    return sorted({"start", "stop", *(_PAYLOAD_FIELDS[part] for part in payload)})


def _payload(
    fields: Mapping[str, Any], payload: frozenset[PayloadField], kinds: Mapping[str, str]
) -> HitPayload:
    return HitPayload(
        fields["title"] if PayloadField.TITLE in payload else None,
        fields["passage"] if PayloadField.TEXT in payload else None,
        parse_attributes(fields["attributes"], kinds)
        if PayloadField.ATTRIBUTES in payload
        else None,
        np.array(fields["vector"], np.float32) if PayloadField.VECTOR in payload else None,
    )
