"""What a search costs before it runs: by hand for each kind of index and option."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nearline.contract import Boost, Grouping, Highlighting, SearchMode, SearchOptions
from nearline.errors import InvalidRequest
from nearline.filters import Any, Equals, Not, Phrase, Words
from nearline.v1.snapshot_pb2 import Fusion, Manifest, ShardEntry
from retrieval.search.price import IndexPrice, check_price, search_price

DENSE = SearchOptions(k=10, mode=SearchMode.DENSE)
BOOSTS = tuple(Boost(field="brand", any_of=(name,)) for name in ("acme", "zenith"))
SCAN = IndexPrice(1_000_000)
GRAPH = IndexPrice(1_000_000, links=32, shards=2)
LISTS = IndexPrice(1_000_000, lists=1_000, nprobe=4)


@pytest.mark.parametrize(
    ("factory", "links", "lists"),
    [
        ("Flat", 0, 0),
        ("SQ8", 0, 0),
        ("HNSW32,Flat", 32, 0),
        ("HNSW16,SQ8,RFlat", 16, 0),
        ("HNSW,Flat", 32, 0),
        ("NSG24,Flat", 24, 0),
        ("OPQ16,IVF4096,PQ16", 0, 4_096),
    ],
)
def test_the_factory_says_what_a_query_compares(factory: str, links: int, lists: int) -> None:
    manifest = Manifest(
        index_factory=factory,
        chunks=7,
        shards=[ShardEntry(), ShardEntry()],
        fusion=Fusion(candidates=100),
        default_ef_search=48,
        default_nprobe=3,
    )
    assert IndexPrice.of(manifest) == IndexPrice(7, links, lists, 48, 3, 100, 2)


@pytest.mark.parametrize(
    ("index", "queries", "options", "price"),
    [
        (SCAN, 1, DENSE, 1_000_000),
        (SCAN, 3, DENSE, 3_000_000),
        # 2 shards x ef 64 x 32 links.
        (GRAPH, 1, DENSE, 4_096),
        (GRAPH, 1, replace(DENSE, ef_search=100), 6_400),
        (GRAPH, 1, replace(DENSE, k=1_000), 64_000),
        (GRAPH, 2, replace(DENSE, exact=True), 2_000_000),
        # The graph of a small collection has no more nodes than chunks.
        (replace(GRAPH, chunks=500), 1, DENSE, 500),
        # 4 of 1,000 lists, and the 1,000 centroids.
        (LISTS, 1, DENSE, 5_000),
        (LISTS, 1, replace(DENSE, nprobe=10), 11_000),
        (LISTS, 1, replace(DENSE, nprobe=65_536), 1_000_000),
        # Only fused hits need more candidates.
        (replace(GRAPH, candidates=200), 1, DENSE, 4_096),
        # 10 groups, each filled by a search.
        (GRAPH, 1, replace(DENSE, grouping=Grouping("brand", 3)), 11 * 4_096),
        (GRAPH, 1, replace(DENSE, grouping=Grouping("brand", 1)), 4_096),
        # A pool of 50 hits, of which 10 are chosen.
        (GRAPH, 1, replace(DENSE, diversity=0.5), 4_096 + 500),
        # 1,000 for each hit, and 50 for each of its words.
        (replace(GRAPH, words=20.0), 1, replace(DENSE, highlight=Highlighting()), 4_096 + 20_000),
        (
            GRAPH,
            2,
            replace(DENSE, highlight=Highlighting(), grouping=Grouping("brand", 3)),
            2 * (11 * 4_096 + 30_000),
        ),
        # 500 candidates for each query, whose boosts take as long as 50 comparisons each.
        (GRAPH, 2, replace(DENSE, boosts=BOOSTS), 2 * (2 * 500 * 32 + 2 * 500 * 2 * 50)),
        (
            replace(GRAPH, shards=1),
            1,
            replace(DENSE, boosts=BOOSTS[:1], grouping=Grouping("brand", 3)),
            500 * 32 + 500 * 50,
        ),
        (IndexPrice(0), 5, DENSE, 5),
    ],
)
def test_the_price_is_what_the_search_compares(
    index: IndexPrice, queries: int, options: SearchOptions, price: int
) -> None:
    assert search_price(index, queries, options) == price


@pytest.mark.parametrize(
    ("texts", "mode", "price"),
    [
        (["word"], SearchMode.LEXICAL, 62_500),
        (["word"], SearchMode.HYBRID, 4_096 + 62_500),
        (["word"], None, 4_096 + 62_500),
        (["word"], SearchMode.DENSE, 4_096),
        # A vector has no words to look up, and thousands of words take longer than a few.
        ([], None, 4_096),
        (["word " * 64], SearchMode.LEXICAL, 5 * 62_500),
    ],
)
def test_words_cost_a_sixteenth_of_the_chunks_for_each_64_characters(
    texts: list[str], mode: SearchMode | None, price: int
) -> None:
    assert search_price(GRAPH, 1, replace(DENSE, mode=mode), texts) == price


def test_a_condition_on_texts_costs_its_words_and_a_phrase_also_the_texts_that_it_reads() -> None:
    index = replace(GRAPH, words=100.0)
    for condition, price in (
        (Words("new york"), 62_500),
        # 2 comparisons for each of 100 words of a 64th of the chunks.
        (Phrase("new york"), 62_500 + 3_125_000),
        (Any(*[Not(Phrase(f"new york {n}")) for n in range(10)]), 10 * (62_500 + 3_125_000)),
        (Equals("kind", "book"), 0),
    ):
        assert search_price(index, 2, replace(DENSE, filter=condition)) == 2 * 4_096 + price


def test_a_price_above_any_limit_is_refused_with_both_figures() -> None:
    limits = [("tenant 'shop'", 2_000), ("the server (--max-comparisons)", 9_000)]
    check_price(2_000, limits)
    check_price(10_000, [])
    with pytest.raises(InvalidRequest, match=r"about 2,001 .* limit of tenant 'shop' is 2,000"):
        check_price(2_001, limits)
    with pytest.raises(InvalidRequest, match=r"--max-comparisons\) is 9,000"):
        check_price(9_001, limits[1:])


def test_fused_hits_are_found_among_more_candidates_of_both_legs() -> None:
    index = replace(GRAPH, candidates=200)
    words = index.of_words("x")
    for mode, price in ((SearchMode.HYBRID, 12_800 + words), (None, 12_800 + words)):
        assert search_price(index, 1, replace(DENSE, mode=mode), ["x"]) == price
    assert search_price(index, 1, replace(DENSE, mode=SearchMode.LEXICAL), ["x"]) == words
