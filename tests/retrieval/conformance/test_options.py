"""Modes, filters, groups, thresholds, diversity, pages and counts, each way that serves them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.admission import note_overload
from nearline.errors import InvalidRequest, NearlineError, NotFound, SnapshotGone, Unsupported
from nearline.filters import All, Any, Equals, Exists, In, Not, Range
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.conftest import Build
from tests.retrieval.conformance.features import DIM, SHAPES, both
from tests.retrieval.fakes import WordEmbedder, word_vector
from tests.retrieval.service_modes import LIVE, OBJECT, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")
CATALOGUE = SHAPES
ITEMS = SHAPES.items
BY_ID = {item.id: item for item in ITEMS}
TITLE = frozenset({c.PayloadField.TITLE})


def cosine(item: c.Item, text: str) -> float:
    # The builder embeds title and text together.
    ours = word_vector(f"{item.title} {item.text}", DIM)
    return float(ours @ word_vector(text, DIM))


class Values(NamedTuple):
    """Attributes of an item, typed."""

    shape: str
    price: float
    tags: list[str] | None

    @classmethod
    def of(cls, item: c.Item) -> Values:
        return cls(*(item.attributes.get(name) for name in cls._fields))  # type: ignore[arg-type]


FILTERS: list[tuple[c.Filter, Callable[[Values], bool]]] = [
    (Equals("shape", "round"), lambda v: v.shape == "round"),
    (Range("price", gte=10, lt=20), lambda v: 10 <= v.price < 20),
    (Equals("tags", "a"), lambda v: "a" in (v.tags or ())),
    (Not(Exists("tags")), lambda v: v.tags is None),
    (
        All(In("shape", ("flat", "square")), Any(Equals("tags", "b"), Range("price", gt=45))),
        lambda v: v.shape in ("flat", "square") and ("b" in (v.tags or ()) or v.price > 45),
    ),
    (Equals("shape", "cubic"), lambda v: False),
]


@pytest.mark.parametrize("mode", list(c.SearchMode))
async def test_a_filter_admits_exactly_the_matching_items(
    service: c.Retriever, mode: c.SearchMode
) -> None:
    text = "red round glass"
    everything = await both(service, text, c.SearchOptions(k=300, mode=mode))
    for filter, matches in FILTERS:
        wanted = {hit.id for hit in everything.hits if matches(Values.of(BY_ID[hit.id]))}
        options = c.SearchOptions(k=300, mode=mode, filter=filter, explain=True, payload=TITLE)
        found = await both(service, text, options)
        assert {hit.id for hit in found.hits} == wanted
        assert all(hit.title == BY_ID[hit.id].title for hit in found.hits)
        count = sum(matches(Values.of(item)) for item in ITEMS)
        reply = await service.search(c.Query(text=text), options, collection="four")
        assert sum(plan.matches for plan in reply.results[0].plans) == count
        assert [plan.shard for plan in reply.results[0].plans] == [0, 1, 2, 3]
        assert all(plan.reason for plan in reply.results[0].plans)


async def test_lexical_hits_have_a_word_of_the_query(service: c.Retriever) -> None:
    options = c.SearchOptions(k=300, mode=c.SearchMode.LEXICAL, explain=True)
    found = await both(service, "rivers of stone", options)
    wanted = {
        i.id for i in ITEMS if {"river", "stone"} & set(f"{i.title} {i.text}".lower().split())
    }
    assert {hit.id for hit in found.hits} == wanted
    assert all(hit.explanation and hit.explanation.lexical_score == hit.score for hit in found.hits)
    nothing = await both(service, "unheard of", options)
    assert nothing.hits == []


@pytest.mark.parametrize("mode", list(c.SearchMode))
async def test_explained_words_come_with_counts_and_weights(
    service: c.Retriever, way: str, mode: c.SearchMode
) -> None:
    query = "Rivers of stone, rivers of unheardof"
    found = await both(service, query, c.SearchOptions(k=1, mode=mode, explain=True))
    if mode is c.SearchMode.DENSE:
        assert found.terms == []
        return
    assert found.language == "english"
    assert [term.word for term in found.terms] == ["river", "stone", "unheardof"]
    for term in found.terms:
        n = sum(term.word in f"{item.title} {item.text}".lower().split() for item in ITEMS)
        if way == LIVE:  # Words count as in the snapshot.
            continue
        assert term.chunks == n
        assert term.idf == pytest.approx(math.log(1 + (len(ITEMS) - n + 0.5) / (n + 0.5)))
    plain = await both(service, query, c.SearchOptions(k=1, mode=mode))
    assert plain.terms == []


async def test_hybrid_is_the_default_for_texts_and_shows_both_legs(
    service: c.Retriever,
) -> None:
    query = "small blue cloud"
    default = await both(service, query, c.SearchOptions(k=10, explain=True))
    hybrid = await both(service, query, c.SearchOptions(k=10, mode=c.SearchMode.HYBRID))
    assert [hit.id for hit in default.hits] == [hit.id for hit in hybrid.hits]
    for hit in default.hits:
        assert hit.explanation is not None
        assert hit.explanation.dense_score == pytest.approx(
            cosine(BY_ID[hit.id], "small blue cloud"), abs=1e-5
        )
        assert hit.explanation.lexical_score is not None
    dense = await both(service, query, c.SearchOptions(k=10, mode=c.SearchMode.DENSE))
    only = c.SearchOptions(k=10, mode=c.SearchMode.HYBRID, dense_weight=1.0)
    assert [h.id for h in (await both(service, query, only)).hits] == [h.id for h in dense.hits]
    vector = c.Query(vector=word_vector("small blue cloud", DIM))
    assert [h.id for h in (await both(service, vector, c.SearchOptions(k=10))).hits] == [
        hit.id for hit in dense.hits
    ]


async def test_each_query_of_a_mixed_batch_is_answered_as_if_alone(service: c.Retriever) -> None:
    queries = [
        c.Query(text="red"),
        c.Query(vector=word_vector("red", DIM)),
        c.Query(item_ids=("i003", "nobody")),
        c.Query(text="steel paper"),
    ]
    options = c.SearchOptions(k=5)
    reply = await service.search_batch(queries, options, collection="four")
    for query, result in zip(queries, reply.results, strict=True):
        alone = await service.search(query, options, collection="four")
        assert [(h.id, h.score) for h in result.hits] == [(h.id, h.score) for h in alone.hits]
    assert [one.id for one in reply.results[2].ignored_ids] == ["nobody"]


def _grouped(hits: Sequence[c.Hit], k: int, size: int) -> list[tuple[float, str]]:
    """Returns the best hits of the k best prices, by hand."""
    by_price: dict[float, list[str]] = {}
    for hit in hits:
        by_price.setdefault(Values.of(BY_ID[hit.id]).price, []).append(hit.id)
    return [(price, one) for price, ids in list(by_price.items())[:k] for one in ids[:size]]


@pytest.mark.parametrize("mode", [c.SearchMode.DENSE, c.SearchMode.LEXICAL])
async def test_groups_hold_the_best_of_each_value(service: c.Retriever, mode: c.SearchMode) -> None:
    query = "large square steel"
    everything = await both(service, query, c.SearchOptions(k=300, mode=mode))
    for size in (1, 3):
        options = c.SearchOptions(k=7, mode=mode, grouping=c.Grouping("price", size))
        found = await both(service, query, options)
        assert [(hit.group, hit.id) for hit in found.hits] == _grouped(everything.hits, 7, size)
    filter, matches = FILTERS[0]
    some = (await both(service, query, replace(options, k=300, filter=filter))).hits
    assert [(hit.group, hit.id) for hit in some] == _grouped(
        [hit for hit in everything.hits if matches(Values.of(BY_ID[hit.id]))], 300, 3
    )
    hybrid = replace(options, mode=c.SearchMode.HYBRID)
    groups = [hit.group for hit in (await both(service, query, hybrid)).hits]
    assert len(set(groups)) == 7 and max(Counter(groups).values()) <= 3
    assert groups == sorted(groups, key=groups.index)


@pytest.mark.parametrize("mode", [c.SearchMode.DENSE, c.SearchMode.LEXICAL])
async def test_further_hits_of_a_group_reach_the_threshold_as_well(
    service: c.Retriever, mode: c.SearchMode
) -> None:
    query = "large square steel"
    plain = (await both(service, query, c.SearchOptions(k=60, mode=mode))).hits
    edge = plain[20].score
    options = c.SearchOptions(k=50, mode=mode, grouping=c.Grouping("price", 3), min_score=edge)
    found = await both(service, query, options)
    within = [hit for hit in plain if hit.score >= edge]
    assert [(hit.group, hit.id) for hit in found.hits] == _grouped(within, 50, 3)


@pytest.mark.parametrize("mode", list(c.SearchMode))
async def test_a_threshold_cuts_and_diversity_reorders(
    service: c.Retriever, mode: c.SearchMode
) -> None:
    query = "red green"
    plain = (await both(service, query, c.SearchOptions(k=20, mode=mode))).hits
    edge = plain[9].score
    cut = await both(service, query, c.SearchOptions(k=20, mode=mode, min_score=edge))
    assert [h.id for h in cut.hits] == [h.id for h in plain if h.score >= edge]
    varied = await both(
        service, query, c.SearchOptions(k=10, mode=mode, diversity=0.7, payload=TITLE)
    )
    assert varied.hits[0].id == plain[0].id
    assert len({hit.id for hit in varied.hits}) == 10
    assert all(hit.vector is None and hit.title for hit in varied.hits)

    def likeness(hits: Sequence[c.Hit]) -> float:
        items = [BY_ID[hit.id] for hit in hits]
        matrix = np.stack([word_vector(f"{one.title} {one.text}", DIM) for one in items])
        return float((matrix @ matrix.T).mean())

    assert likeness(varied.hits) < likeness(plain[:10])


async def test_all_items_are_listed_page_by_page(service: c.Retriever) -> None:
    filter, matches = FILTERS[4]
    for collection in COLLECTIONS:
        for wanted, condition in (
            (ITEMS, None),
            ([item for item in ITEMS if matches(Values.of(item))], filter),
        ):
            token, seen = "", []
            while True:
                page = await service.list_items(
                    page_size=17,
                    page_token=token,
                    filter=condition,
                    payload=TITLE,
                    collection=collection,
                )
                seen += [(item.id, item.title, item.text) for item in page.items]
                token = page.next_page_token
                if not token:
                    break
            assert seen == [(item.id, item.title, "") for item in wanted]


async def test_a_token_of_another_list_is_refused(service: c.Retriever) -> None:
    page = await service.list_items(page_size=5, collection="four")
    with pytest.raises(InvalidRequest, match="a different filter"):
        await service.list_items(
            page_token=page.next_page_token, filter=Exists("tags"), collection="four"
        )
    with pytest.raises(SnapshotGone, match="is not loaded"):
        await service.list_items(page_token=page.next_page_token, collection="one")
    for junk in ("junk", "e30=", "%%%"):
        with pytest.raises(InvalidRequest, match="start again without page_token"):
            await service.list_items(page_token=junk, collection="four")
    with pytest.raises(InvalidRequest, match="page_size"):
        await service.list_items(page_size=1_001, collection="four")


async def test_items_and_their_values_are_counted(service: c.Retriever) -> None:
    filter, matches = FILTERS[1]
    chosen = [item for item in ITEMS if matches(Values.of(item))]
    facets = [c.Facet(field="shape"), c.Facet(field="tags", limit=2)]
    for collection in COLLECTIONS:
        reply = await service.count_items(filter, facets, collection=collection)
        assert reply.count == len(chosen)
        shapes, tags = reply.facets
        assert dict(shapes.counts) == Counter(item.attributes["shape"] for item in chosen)
        assert [n for _, n in shapes.counts] == sorted((n for _, n in shapes.counts), reverse=True)
        per_tag = Counter(tag for i in chosen for tag in set(Values.of(i).tags or ()))
        expected = sorted(per_tag.items(), key=lambda one: (-one[1], str(one[0])))
        assert tags.counts == expected[:2]
        assert (tags.distinct, tags.missing) == (
            len(per_tag),
            sum("tags" not in item.attributes for item in chosen),
        )
        everything = await service.count_items(collection=collection)
        assert everything.count == len(ITEMS)


async def test_items_are_read_in_the_order_of_their_ids(service: c.Retriever) -> None:
    wanted = ["i017", "lost", "i003", "i001"]
    for payload in (frozenset(c.PayloadField), TITLE):
        reply = await service.get_items(wanted, payload, collection="four", timeout_s=10.0)
        assert [one.id for one in reply.items] == ["i017", "i003", "i001"]
        assert list(reply.ignored_ids) == [c.IgnoredId("lost", c.IgnoredReason.NOT_FOUND)]
        for item in reply.items:
            whole, full = BY_ID[item.id], len(payload) > 1
            assert item.title == whole.title
            assert (item.text, item.attributes) == (
                (whole.text, whole.attributes) if full else ("", {})
            )
            assert (item.vector is not None) == full


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (c.Query(vector=np.ones(7, np.float32)), InvalidRequest),
        (c.Query(vector=np.full(DIM, np.nan, np.float32)), InvalidRequest),
        (c.Query(text=""), InvalidRequest),
        (c.Query(), InvalidRequest),
        (c.Query(item_ids=("lost",)), NotFound),
        (c.Query(text="red"), SnapshotGone),
    ],
)
async def test_a_bad_query_raises_the_same_error_each_way(
    service: c.Retriever, query: c.Query, error: type[NearlineError]
) -> None:
    gone = "20260101T000000Z-000000" if error is SnapshotGone else ""
    with pytest.raises(error) as caught:
        await service.search(query, c.SearchOptions(snapshot_id=gone), collection="four")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("options", "field", "text"),
    [
        ({"filter": Equals("shap", "round")}, "", "shape"),
        ({"filter": Equals("price", "round")}, "", "price"),
        ({"k": 0}, "options.k", "1..10,000"),
        ({"k": 10_001}, "options.k", "1..10,000"),
        ({"ef_search": 20}, "options.ef_search", "no ef_search"),
        ({"diversity": 1.5}, "options.diversity", "0..1"),
        ({"dense_weight": -0.1}, "options.dense_weight", "0..1"),
        ({"min_score": float("nan")}, "options.min_score", "not a finite number"),
        ({"grouping": c.Grouping("shop")}, "options.grouping.field", "'shape'"),
        ({"grouping": c.Grouping("tags")}, "options.grouping.field", "holds lists"),
        ({"grouping": c.Grouping("shape", 101)}, "options.grouping.size", "1..100"),
        ({"grouping": c.Grouping("shape"), "diversity": 0.5}, "options.diversity", "exclude"),
    ],
)
async def test_a_bad_option_is_refused_with_the_remedy(
    service: c.Retriever, options: dict[str, object], field: str, text: str
) -> None:
    with pytest.raises((InvalidRequest, Unsupported)) as caught:
        await service.search(
            c.Query(text="red"),
            c.SearchOptions(**options),  # type: ignore[arg-type]
            collection="four",
        )
    assert text in caught.value.message
    assert not field or caught.value.field == field
    with pytest.raises(InvalidRequest, match="needs words"):
        await service.search(
            c.Query(vector=np.ones(DIM, np.float32)),
            c.SearchOptions(mode=c.SearchMode.HYBRID),
            collection="four",
        )


async def test_a_search_that_costs_too_much_is_refused_before_it_runs(built: Build) -> None:
    limits = [("tenant 'shop'", 2 * len(ITEMS))]
    options = c.SearchOptions(mode=c.SearchMode.DENSE)
    async with opened(OBJECT, built(OBJECT), WordEmbedder(DIM), limits) as service:
        queries = [c.Query(text="red")] * 2
        assert (
            len((await service.search_batch(queries, options, collection=COLLECTIONS[0])).results)
            == 2
        )
        with pytest.raises(InvalidRequest, match=f"{3 * len(ITEMS)} comparisons .* 'shop'"):
            await service.search_batch(
                [*queries, c.Query(vector=np.empty(0, np.float32))],
                options,
                collection=COLLECTIONS[0],
            )


async def test_under_overload_a_search_does_without_further_rounds_and_says_so(
    built: Build,
) -> None:
    query = c.Query(text="red green")
    grouping = c.Grouping("price", 3)

    async def found(
        service: c.Retriever, options: c.SearchOptions
    ) -> tuple[Sequence[str], c.ServedBy]:
        reply = await service.search(query, options, collection="four", timeout_s=10.0)
        return [hit.id for hit in reply.hits], reply.info.served_by

    async def in_overload(
        service: c.Retriever, options: c.SearchOptions
    ) -> tuple[Sequence[str], c.ServedBy]:
        note_overload()
        return await found(service, options)

    async with opened(OBJECT, built(OBJECT), WordEmbedder(DIM)) as service:
        plain = c.SearchOptions(k=10, mode=c.SearchMode.DENSE)
        one_each = replace(plain, grouping=replace(grouping, size=1))
        for options, instead, said in (
            (replace(plain, diversity=0.7), plain, "not diversified"),
            (replace(plain, grouping=grouping), one_each, "its best hit only"),
        ):
            # Each task notes for itself.
            ids, served_by = await asyncio.create_task(in_overload(service, options))
            assert ids == (await found(service, instead))[0] != (await found(service, options))[0]
            assert (served_by.source, served_by.rung) == (c.Source.FALLBACK, "reduced")
            assert said in served_by.reason and "overloaded" in served_by.reason
        # Nothing is left out where nothing can be: hybrid groups take one round.
        for options in (plain, c.SearchOptions(k=5, mode=c.SearchMode.HYBRID, grouping=grouping)):
            assert await asyncio.create_task(in_overload(service, options)) == await found(
                service, options
            )


async def test_groups_are_filled_for_the_query_they_are_of_without_its_examples(
    tmp_path: Path,
) -> None:
    degrees = {"a": 0, "c": 45, "d": 105, "b": 90, "e": 40, "f": -20}
    items = [
        c.Item(
            id=one,
            vector=np.array([np.cos(np.radians(at)), np.sin(np.radians(at))], np.float32),
            attributes={"shape": "round" if one in "acd" else "flat"},
        )
        for one, at in degrees.items()
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path), shards=2))
    # No example is the best of its group.
    west = c.Query(vector=np.array([-1, 0], np.float32))
    queries = [west, c.Query(item_ids=("a", "b")), c.Query(item_ids=("a", "b", "d", "f"))]
    options = c.SearchOptions(k=2, grouping=c.Grouping("shape", 2))
    async with opened(OBJECT, tmp_path, WordEmbedder(2)) as service:
        reply = await service.search_batch(queries, options)
    found = [[(hit.group, hit.id) for hit in one.hits] for one in reply.results]
    assert found == [
        [("round", "d"), ("round", "c"), ("flat", "b"), ("flat", "e")],
        [("round", "c"), ("round", "d"), ("flat", "e"), ("flat", "f")],
        [("round", "c"), ("flat", "e")],
    ]
