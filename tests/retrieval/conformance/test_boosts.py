"""Boosted searches against arithmetic, each way that serves them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.filters import Equals
from retrieval.router.search_page import SearchPage
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import DIM, NAMED, NOW, SHAPES, both
from tests.retrieval.fakes import word_vector

pytestmark = pytest.mark.asyncio(loop_scope="module")
CATALOGUE = SHAPES
ITEMS = {item.id: item for item in SHAPES.items}
TEXT = c.Query(text="red glass stone")
VECTOR = c.Query(vector=-word_vector("red glass", DIM))


async def hits_of(
    service: c.Retriever, query: c.Query, options: c.SearchOptions
) -> Sequence[c.Hit]:
    return (await both(service, query, options)).hits


def days(value: c.AttributeValue) -> float:
    assert isinstance(value, datetime)
    return abs((value - NOW).total_seconds()) / 86_400


DAY = 86_400.0
# Each with its value by hand, for items that have the attribute.
BOOSTS: dict[str, tuple[c.Boost, Any]] = {
    "one of": (
        c.Boost(field="shape", any_of=("round", "flat"), weight=2.0),
        lambda value: float(value in ("round", "flat")),
    ),
    "one of a list": (
        c.Boost(field="tags", any_of=("a",)),
        lambda value: float("a" in value),
    ),
    "less": (c.Boost(field="shape", any_of=("round",), weight=-3.0), lambda v: float(v == "round")),
    "saturation": (
        c.Boost(field="sold", growth=c.Growth(pivot=50.0), weight=0.5),
        lambda value: value / (value + 50),
    ),
    "logarithm": (
        c.Boost(field="sold", growth=c.Growth(top=200.0), weight=10.0),
        lambda value: min(1.0, math.log(1 + value) / math.log(201)),
    ),
    "gauss": (
        c.Boost(field="added", decay=c.Decay(origin=NOW, scale=30 * DAY, offset=7 * DAY)),
        lambda value: 0.5 ** ((max(0.0, days(value) - 7) / 30) ** 2),
    ),
    "exponential": (
        c.Boost(
            field="added",
            decay=c.Decay(origin=NOW, scale=100 * DAY, decay=0.1, shape=c.DecayShape.EXP),
        ),
        lambda value: 0.1 ** (days(value) / 100),
    ),
    "linear, of a number": (
        c.Boost(
            field="price",
            decay=c.Decay(origin=20, scale=10.0, offset=2.5, decay=0.2, shape=c.DecayShape.LINEAR),
        ),
        lambda value: max(0.0, 1 - 0.8 * max(0.0, abs(value - 20) - 2.5) / 10),
    ),
}


def value_of(name: str, item: c.Item) -> float:
    boost, by_hand = BOOSTS[name]
    value = item.attributes.get(boost.field)
    return 0.0 if value is None else float(by_hand(value))


def boosted(base: float, title: float, names: Sequence[str], item: c.Item) -> float:
    """Returns the score of an item, by hand."""
    total = sum(BOOSTS[name][0].weight * value_of(name, item) for name in names)
    factor = 1 + total if total >= 0 else 1 / (1 - total)
    most = 1 + sum(max(0.0, BOOSTS[name][0].weight) for name in names)
    return (base * factor if base >= 0 else base / factor) + title * most


@pytest.mark.parametrize("names", [[name] for name in BOOSTS] + [list(BOOSTS)], ids="+".join)
@pytest.mark.parametrize(
    ("query", "mode"),
    [*((TEXT, mode) for mode in c.SearchMode), (VECTOR, c.SearchMode.DENSE)],
    ids=["dense", "lexical", "hybrid", "vector"],
)
async def test_scores_are_those_by_hand(
    service: c.Retriever, query: c.Query, mode: c.SearchMode, names: list[str]
) -> None:
    # As many hits as there are items, so that all are candidates.
    plain = c.SearchOptions(k=300, mode=mode, explain=True)
    options = replace(plain, boosts=tuple(BOOSTS[name][0] for name in names))
    before = {hit.id: hit for hit in await hits_of(service, query, plain)}
    if query is VECTOR:
        assert min(hit.score for hit in before.values()) < 0
    after = await hits_of(service, query, options)
    assert {hit.id for hit in after} == set(before)
    for hit in after:
        item, old = ITEMS[hit.id], before[hit.id]
        title = title_part(old, mode)
        wanted = boosted(old.score - title, title, names, item)
        assert hit.score == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        assert hit.explanation is not None and old.explanation is not None
        values = [value_of(name, item) for name in names]
        assert hit.explanation.boosts == pytest.approx(values, abs=1e-6)
        # The rest explains the score without boosts.
        assert replace(hit.explanation, boosts=()) == old.explanation
    order = [(-hit.score, hit.id) for hit in after]
    assert order == sorted(order)
    if query is TEXT and mode is not c.SearchMode.DENSE:
        assert {hit.id for hit in after[:3]} == NAMED, "no boost outranks a name"


def title_part(hit: c.Hit, mode: c.SearchMode) -> float:
    """Returns what the title adds to a score without boosts: three levels of 32, and popularity."""
    assert hit.explanation is not None
    if mode is c.SearchMode.HYBRID:
        return 32 * hit.explanation.title_level
    # For each of three words of the query.
    return 32.0 * 3 * 3 if mode is c.SearchMode.LEXICAL and hit.id in NAMED else 0.0


async def test_a_boost_raises_every_hit_that_has_it_whatever_its_sign(
    service: c.Retriever,
) -> None:
    up = c.SearchOptions(k=300, boosts=(c.Boost(field="tags", any_of=("a",)),))
    down = replace(up, boosts=(replace(up.boosts[0], weight=-1.0),))
    for query in (VECTOR, c.Query(vector=word_vector("red glass", DIM))):
        plain, more, less = [
            {hit.id: hit.score for hit in await hits_of(service, query, options)}
            for options in (c.SearchOptions(k=300), up, down)
        ]
        for one, score in plain.items():
            if "a" not in (ITEMS[one].attributes.get("tags") or ()):  # type: ignore[operator]
                assert score == more[one] == less[one]
            elif score:
                assert less[one] < score < more[one]


async def test_now_is_the_origin_where_none_is_set(service: c.Retriever) -> None:
    decay = c.Decay(scale=1000 * DAY)
    then, now = datetime.now(UTC), c.Boost(field="added", decay=decay)
    options = c.SearchOptions(k=300, explain=True, boosts=(now,))

    async def found(options: c.SearchOptions) -> Sequence[c.Hit]:
        # In one collection alone: between two searches, now has moved on.
        return (await service.search(TEXT, options, collection=COLLECTIONS[0])).hits

    for hit in await found(options):
        added = ITEMS[hit.id].attributes.get("added")
        assert hit.explanation is not None
        value = 0.0
        if isinstance(added, datetime):
            value = 0.5 ** ((abs((added - then).total_seconds()) / DAY / 1000) ** 2)
        assert hit.explanation.boosts == pytest.approx([value], abs=1e-4)
    # Of numbers, now is in seconds since 1970, from which no price differs by more than itself.
    far = c.Boost(field="price", decay=c.Decay(scale=then.timestamp(), shape=c.DecayShape.LINEAR))
    for hit in await found(replace(options, boosts=(far,))):
        assert hit.explanation is not None
        assert hit.explanation.boosts == pytest.approx([0.5], abs=1e-3)


@pytest.mark.parametrize("mode", list(c.SearchMode))
async def test_all_else_is_done_to_the_boosted_hits(
    service: c.Retriever, mode: c.SearchMode
) -> None:
    boosts = tuple(BOOSTS[name][0] for name in ("one of", "saturation", "gauss"))
    options = c.SearchOptions(k=300, mode=mode, boosts=boosts, payload=frozenset())
    every = await hits_of(service, TEXT, options)
    scores = [(hit.id, hit.score) for hit in every]

    async def found(**others: Any) -> list[tuple[str, float]]:
        hits = await hits_of(service, TEXT, replace(options, **others))
        return [(hit.id, hit.score) for hit in hits]

    assert await found(k=7) == scores[:7]
    edge = scores[20][1]
    assert await found(min_score=edge) == [one for one in scores if one[1] >= edge]
    if mode is not c.SearchMode.HYBRID:  # Fused scores are those of one search.
        round_ones = await found(filter=Equals("shape", "round"))
        assert round_ones == [one for one in scores if ITEMS[one[0]].attributes["shape"] == "round"]
    groups: dict[c.AttributeValue, list[tuple[str, float]]] = {}
    for one in scores:
        groups.setdefault(ITEMS[one[0]].attributes["shape"], []).append(one)
    assert await found(k=2, grouping=c.Grouping("shape", 3)) == [
        one for some in [*groups.values()][:2] for one in some[:3]
    ]
    assert await found(k=2, grouping=c.Grouping("shape")) == [
        some[0] for some in [*groups.values()][:2]
    ]
    diverse = await found(k=20, diversity=0.3)
    assert set(diverse) <= set(scores[:80]) and diverse[0] == scores[0]
    payload = frozenset({c.PayloadField.TITLE, c.PayloadField.ATTRIBUTES})
    for hit in await hits_of(service, TEXT, replace(options, k=30, payload=payload)):
        item = ITEMS[hit.id]
        assert (hit.title, hit.attributes) == (item.title, item.attributes)
    # Pages are parts of one list.
    pages: list[tuple[str, float]] = []
    for number in range(4):
        part = replace(options, k=8)
        wide = SearchPage("", 8 * number).widened(part) if number else part
        pages += (await found(k=wide.k))[8 * number :]
    assert pages == scores[:32]


async def test_examples_are_no_hits(service: c.Retriever) -> None:
    query = c.Query(item_ids=tuple(list(ITEMS)[:40]))
    options = c.SearchOptions(k=300, boosts=(BOOSTS["one of"][0],))
    hits = await hits_of(service, query, options)
    assert {hit.id for hit in hits} == set(ITEMS) - set(query.item_ids)
    grouped = await hits_of(service, query, replace(options, k=1, grouping=c.Grouping("shape", 2)))
    assert [hit.id for hit in grouped] == [
        hit.id
        for hit in hits
        if ITEMS[hit.id].attributes["shape"] == ITEMS[hits[0].id].attributes["shape"]
    ][:2]


SHAPE = c.Boost(field="shape", any_of=("round",))
SOLD = c.Boost(field="sold", growth=c.Growth(pivot=1.0))
ADDED = c.Boost(field="added", decay=c.Decay(scale=1.0))


def decaying(**fields: Any) -> c.Boost:
    return replace(ADDED, decay=c.Decay(**{"scale": 1.0, **fields}))


@pytest.mark.parametrize(
    ("boost", "field", "problem"),
    [
        (replace(SHAPE, field="shap"), "field", "did you mean 'shape'"),
        (replace(SHAPE, weight=10.5), "weight", "-10..10 is allowed"),
        (replace(SHAPE, weight=-11.0), "weight", "-10..10 is allowed"),
        (replace(SHAPE, any_of=()), "", "set exactly one"),
        (replace(SHAPE, growth=c.Growth(pivot=1.0)), "", "2 of any_of, growth and decay"),
        (replace(SHAPE, any_of=(3,)), "any_of", "is of kind string"),
        (replace(SHAPE, any_of=(None,)), "any_of", "a value of kind null"),
        (replace(SHAPE, any_of=("x",) * 257), "any_of", "256"),
        (replace(SOLD, field="shape"), "growth", "--attribute shape:double"),
        (replace(SOLD, growth=c.Growth()), "growth", "0 of pivot and top"),
        (replace(SOLD, growth=c.Growth(pivot=1.0, top=1.0)), "growth", "2 of pivot and top"),
        (replace(SOLD, growth=c.Growth(pivot=0.0)), "growth.pivot", "> 0"),
        (replace(SOLD, growth=c.Growth(top=-1.0)), "growth.top", "> 0"),
        (replace(ADDED, field="shape"), "decay", "--attribute shape:time"),
        (decaying(scale=0.0), "decay.scale", "> 0"),
        (decaying(offset=-1.0), "decay.offset", ">= 0"),
        (decaying(decay=1.0), "decay.decay", "between 0 and 1"),
        (decaying(decay=0.0), "decay.decay", "between 0 and 1"),
        (decaying(origin=5), "decay.origin", "is of kind time"),
        (decaying(origin="2026-05-01"), "decay.origin", "is of kind time"),
    ],
)
async def test_bad_boosts_are_refused_with_a_remedy(
    service: c.Retriever, boost: c.Boost, field: str, problem: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        options = c.SearchOptions(boosts=(SHAPE, boost))
        await service.search(TEXT, options, collection="one")
    assert problem in str(refused.value)
    where = str(refused.value.field)
    assert where.startswith(f"options.boosts[1].{field}".rstrip("."))


async def test_the_number_of_boosts_hits_and_queries_is_bounded(service: c.Retriever) -> None:
    for options, field in (
        (c.SearchOptions(boosts=(SHAPE,) * 17), "options.boosts"),
        (c.SearchOptions(k=501, boosts=(SHAPE,)), "options.k"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await service.search(TEXT, options, collection="one")
        assert refused.value.field == field
    with pytest.raises(InvalidRequest, match="at most 262") as refused:
        await service.search_batch([TEXT] * 263, c.SearchOptions(boosts=(SHAPE,)), collection="one")
    assert refused.value.field == "options.boosts"
    options = c.SearchOptions(k=500, boosts=(SHAPE,) * 16)
    assert len((await service.search(TEXT, options, collection="one")).hits) == 300
