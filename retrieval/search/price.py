"""Estimates what a search costs before it runs, and refuses one that costs too much.

    price = search_price(collection.index_price, 16, options, texts)
    check_price(price, [("the server (--max-comparisons)", 2_000_000_000)])

The unit is the comparison of two vectors: 25 to 40 ns of one core with 384 dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.filters import Filter, Phrase, text_conditions
from nearline.v1 import snapshot_pb2
from retrieval.search.diversity import diverse_depth, pool_size

_GRAPH = re.compile(r"(?:HNSW|NSG)(\d*)")
_LISTS = re.compile(r"IVF(\d+)")
# Links of a node where the factory names no number, as in FAISS.
_LINKS: Final = 32
# Words are looked up in lists; even the lists of common words take far less than a scan. A text of
# 32,768 characters takes as long as 400 of one word.
_WORDS_SHARE: Final = 16
_TEXT_CHARACTERS: Final = 64
# Of the texts, those that have all words of a phrase are read; a word takes two comparisons.
_PHRASE_SHARE: Final = 64
_PHRASE_WORD: Final = 2
# A hit is highlighted in the time of so many comparisons, and of so many for each of its words.
_HIGHLIGHT: Final = 1_000
_HIGHLIGHT_WORD: Final = 50
# So is the value of a boost computed for one candidate.
_BOOST: Final = 50


@dataclass(frozen=True, slots=True)
class IndexPrice:
    """The cost of one query in the index of a snapshot.

    chunks: Vectors in all shards. links: Neighbours of a node of the graph; 0: no graph. lists:
    Lists of an inverted file; 0: none. Without either, every vector is compared. ef_search,
    nprobe: Default widths. candidates: Hits per leg of a hybrid search. shards: Number of shards.
    words: Words of a chunk, on average; 0 if they are not known.
    """

    chunks: int
    links: int = 0
    lists: int = 0
    ef_search: int = 64
    nprobe: int = 1
    candidates: int = 0
    shards: int = 1
    words: float = 0.0

    @classmethod
    def of(cls, manifest: snapshot_pb2.Manifest) -> Self:
        """Returns the price of the index of a snapshot."""
        graph, lists = (kind.search(manifest.index_factory) for kind in (_GRAPH, _LISTS))
        return cls(
            manifest.chunks,
            0 if graph is None else int(graph[1] or _LINKS),
            0 if lists is None else int(lists[1]),
            manifest.default_ef_search or 64,
            manifest.default_nprobe or 1,
            manifest.fusion.candidates,
            max(1, len(manifest.shards)),
            manifest.lexical.mean_length,
        )

    def of_query(self, k: int, options: c.SearchOptions) -> int:
        """Returns the comparisons of one query by vector that wants k hits."""
        if options.exact or not (self.links or self.lists):
            return self.chunks
        if self.lists:
            probed = max(options.nprobe or self.nprobe, 1)
            return min(self.chunks, self.chunks * probed // self.lists + self.lists)
        width = max(options.ef_search or self.ef_search, k)
        return min(self.chunks, self.shards * width * self.links)

    def of_words(self, text: str) -> int:
        """Returns the comparisons that take as long as the words of a query."""
        return self.chunks // _WORDS_SHARE * -(-len(text) // _TEXT_CHARACTERS)

    def of_conditions(self, filter: Filter | None) -> int:
        """Returns the comparisons that take as long as the conditions of a filter on texts."""
        phrase = round(self.chunks * self.words * _PHRASE_WORD / _PHRASE_SHARE)
        texts = () if filter is None else text_conditions(filter)
        return sum(self.of_words(one.text) + isinstance(one, Phrase) * phrase for one in texts)

    def of_highlights(self) -> int:
        """Returns the comparisons that take as long as to highlight a hit."""
        return _HIGHLIGHT + round(_HIGHLIGHT_WORD * self.words)


def search_price(
    index: IndexPrice, queries: int, options: c.SearchOptions, texts: Sequence[str] = ()
) -> int:
    """Returns an estimate of the comparisons that a search needs; at least one per query.

    Args:
        index: Index of the collection.
        queries: Number of queries.
        options: Options of the search.
        texts: The queries that are texts; none if the collection has no word index.
    """
    k = options.k
    if options.diversity:
        depth = diverse_depth(k, queries)
        k = max(k, pool_size(depth))
    if options.boosts:
        k = c.MAX_BOOSTED
    each = len(options.boosts) * c.MAX_BOOSTED * index.shards * _BOOST
    if options.mode is not c.SearchMode.LEXICAL:
        # Texts are searched in both ways, if no mode is named; then each has that many hits.
        fused = options.mode is not c.SearchMode.DENSE and texts
        each += index.of_query(max(k, index.candidates) if fused else k, options)
    if options.grouping is not None and options.grouping.size > 1 and not options.boosts:
        # Each group is filled by a search of its own.
        each += options.k * index.of_query(options.grouping.size, options)
    if options.diversity:
        each += pool_size(depth) * depth
    if options.highlight is not None:
        size = 1 if options.grouping is None else max(1, options.grouping.size)
        each += options.k * size * index.of_highlights()
    words = 0
    if options.mode is not c.SearchMode.DENSE:
        words = sum(map(index.of_words, texts))
    return max(queries, queries * each + words + index.of_conditions(options.filter))


def check_price(price: int, limits: Sequence[tuple[str, int]]) -> None:
    """Checks the price of a search.

    Args:
        price: Its comparisons.
        limits: Each with whose it is, such as "tenant 'shop'".
    Raises: InvalidRequest: it is above a limit; names both.
    """
    for whose, limit in limits:
        if price > limit:
            raise InvalidRequest(
                f"the search takes about {price:,} comparisons of vectors, and the limit of "
                f"{whose} is {limit:,}; send fewer queries at once, shorter texts, a smaller k, "
                "ef_search or nprobe, or leave out exact, diversity, highlight, groups of several "
                "hits, or phrases and words in the filter",
                field="options",
            )
