"""A shard server refuses what no router sends, before it costs anything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.protocols.shard import (
    CountRequest,
    HighlightRequest,
    ItemsRequest,
    ScanRequest,
    ShardOptions,
    ShardQueries,
)
from retrieval.shards.validation import check_count, check_fetch, check_scan, check_search

DENSE, LEXICAL, HYBRID = c.SearchMode.DENSE, c.SearchMode.LEXICAL, c.SearchMode.HYBRID


BOOST = c.Boost(field="a", any_of=("x",) * 256)
MANY = c.Boost(field="a", any_of=("x",) * 257)


def queries(vectors: int, texts: int = 0, text: str = "x") -> ShardQueries:
    return ShardQueries(np.ones((vectors, 2), np.float32), (text,) * texts)


def options(mode: c.SearchMode = DENSE, **fields: object) -> ShardOptions:
    plain = c.SearchOptions(mode=mode)
    given = {name: getattr(plain, name) for name in ShardOptions._fields}
    return ShardOptions(**(given | {"min_watermark": None} | fields))


@pytest.mark.parametrize(
    "asked, chosen",
    [
        (queries(1), options()),
        (queries(c.MAX_BATCH), options(k=c.MAX_HITS)),
        (queries(0, 1), options(LEXICAL)),
        (queries(2, 2, "x" * c.MAX_QUERY_CHARACTERS), options(HYBRID)),
        (queries(1), options(ef_search=4_096, nprobe=65_536, grouping=c.Grouping("a", 100))),
        (queries(1), options(boosts=(BOOST,) * 16)),
    ],
)
def test_what_a_router_may_send_is_accepted(asked: ShardQueries, chosen: ShardOptions) -> None:
    check_search(asked, chosen)


@pytest.mark.parametrize(
    "asked, chosen, field",
    [
        (queries(0), options(), "vectors"),
        (queries(c.MAX_BATCH + 1), options(), "vectors"),
        (queries(0, 1), options(HYBRID), "vectors"),
        (queries(1), options(HYBRID), "texts"),
        (queries(0), options(LEXICAL), "texts"),
        (queries(0, c.MAX_BATCH + 1), options(LEXICAL), "texts"),
        (queries(0, 1, "x" * (c.MAX_QUERY_CHARACTERS + 1)), options(LEXICAL), "texts[0]"),
        (queries(1), options(k=0), "options.k"),
        (queries(1), options(k=c.MAX_HITS + 1), "options.k"),
        (queries(1), options(ef_search=0), "options.ef_search"),
        (queries(1), options(ef_search=4_097), "options.ef_search"),
        (queries(1), options(nprobe=65_537), "options.nprobe"),
        (queries(1), options(grouping=c.Grouping("a", 101)), "options.grouping.size"),
        (queries(1), options(boosts=(BOOST,) * 17), "options.boosts"),
        (queries(1), options(boosts=(MANY,)), "options.boosts[0].any_of"),
    ],
)
def test_a_search_that_costs_too_much_is_refused(
    asked: ShardQueries, chosen: ShardOptions, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_search(asked, chosen)
    assert caught.value.field == field


def test_reads_are_bounded() -> None:
    few = ItemsRequest(["a", "b"], frozenset(), (0, 1), None, None)
    check_fetch(few)
    check_fetch(few._replace(chunks=()))
    check_scan(ScanRequest("", c.MAX_PAGE, None, frozenset(), None))
    check_count(CountRequest(None, [], None))
    check_count(CountRequest(None, ["a"] * c.MAX_FACETS, None))
    marked = HighlightRequest(["a", ""], [[0, 1], []], 2_000, 5)
    check_fetch(few._replace(highlight=marked))
    for bad in (
        marked._replace(texts=["x" * (c.MAX_QUERY_CHARACTERS + 1), ""]),
        marked._replace(texts=[], queries=[[], []]),
        marked._replace(texts=["a"]),
        marked._replace(queries=[[0]]),
        marked._replace(queries=[[0] * c.MAX_HITS, [1]]),
        marked._replace(passage_chars=0),
        marked._replace(passage_chars=2_001),
    ):
        with pytest.raises(InvalidRequest, match="highlight"):
            check_fetch(few._replace(highlight=bad))
    with pytest.raises(InvalidRequest, match="chunks"):
        check_fetch(few._replace(chunks=(), highlight=marked))
    tables: list[tuple[Callable[[], None], str]] = [
        (lambda: check_fetch(few._replace(ids=[])), "ids"),
        (lambda: check_fetch(few._replace(ids=["a"] * (c.MAX_HITS + 1), chunks=())), "ids"),
        (lambda: check_fetch(few._replace(chunks=(0,))), "chunks"),
        (lambda: check_scan(ScanRequest("", 0, None, frozenset(), None)), "limit"),
        (lambda: check_scan(ScanRequest("", c.MAX_PAGE + 1, None, frozenset(), None)), "limit"),
        (lambda: check_count(CountRequest(None, ["a"] * (c.MAX_FACETS + 1), None)), "fields"),
    ]
    for refused, field in tables:
        with pytest.raises(InvalidRequest) as caught:
            refused()
        assert caught.value.field == field
