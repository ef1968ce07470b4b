"""Filters over live documents agree with plain Python; views find the right documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from nearline import filters as f
from nearline.contract import Attributes, PlanStrategy
from nearline.errors import InvalidRequest
from retrieval.index.attributes import SegmentAttributes
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.vectors.vector_index import SearchParams
from retrieval.live.attributes import LiveColumns
from retrieval.live.documents import DocumentsView, LiveDocuments, LiveItem
from retrieval.live.vectors import LiveVectors
from tests.retrieval.live.base_shards import FIELDS
from tests.scale import scaled

TIME = datetime(2020, 1, 1, tzinfo=UTC)
NUMBERS = st.integers(-2, 2) | st.sampled_from([-1.5, 0.0, -0.0, 2.0, 2.5])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["a", "b", "", "é"]),
    "year": st.integers(-2, 2) | st.sampled_from([(1 << 53) + 1, -(1 << 63)]),
    "price": NUMBERS,
    "sold": st.booleans(),
    "made": st.integers(-2, 2).map(lambda days: TIME + timedelta(days=days, microseconds=days)),
    "tags": st.lists(st.sampled_from(["a", "b"]), max_size=3),
}
ASKED = VALUES | {"year": NUMBERS, "tags": st.sampled_from(["a", "b"])}
documents = st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=12)


def conditions_on(name: str) -> st.SearchStrategy[f.Filter]:
    values = ASKED[name]
    kinds: list[st.SearchStrategy[Any]] = [
        st.just(f.Exists(name)),
        values.map(lambda value: f.Equals(name, value)),
        st.lists(values, min_size=1, max_size=3).map(lambda some: f.In(name, tuple(some))),
    ]
    if name in ("year", "price", "made"):
        bounds = st.dictionaries(st.sampled_from(f.BOUNDS), values, min_size=1)
        kinds.append(bounds.map(lambda given: f.Range(name, **given)))
    return st.one_of(kinds)


filters = st.recursive(
    st.sampled_from([*VALUES]).flatmap(conditions_on),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f.All(*parts)),
        st.lists(inner, max_size=3).map(lambda parts: f.Any(*parts)),
        inner.map(f.Not),
    ),
    max_leaves=5,
)


def view_of(
    several: Sequence[Attributes], chunks: Sequence[int] = ()
) -> tuple[SegmentAttributes, DocumentsView]:
    """Creates the attributes of documents with one row each by default."""
    store, columns, vectors = LiveDocuments(), LiveColumns(FIELDS), LiveVectors(2)
    for number, attributes in enumerate(several):
        rows = chunks[number] if chunks else 1
        store.add(LiveItem(f"d{number}", "", "", attributes, 1, None), np.zeros((rows, 2), int))
        vectors.add(np.ones((rows, 2), np.float32))
        columns.catch_up(store.items)
    view = store.view(np.ones(len(several), np.bool_))
    return columns.view(store.items, view, vectors.view(view.names_of)), view


@settings(deadline=None, max_examples=scaled(80, nightly=1_000))
@given(documents, filters, st.sampled_from([1, 25, 300]))
def test_filters_agree_with_plain_python(
    several: list[Attributes], condition: f.Filter, copies: int
) -> None:
    attributes, view = view_of(several * copies, [number % 3 for number in range(99_999)])
    matches = attributes.matches(condition)
    wanted = [f.admits(condition, one) for one in several] * copies
    assert matches.documents.tolist() == wanted
    rows = [row for d in np.flatnonzero(wanted).tolist() for row in view.rows_of(d).tolist()]
    assert np.flatnonzero(matches.chunks).tolist() == rows
    assert matches.count == len(rows)
    plan = attributes.word_plan(matches)
    assert (plan.matches, plan.chunks) == (len(rows), view.chunks)
    vectors = np.ones((1, 2), np.float32)
    found, plan = attributes.filtered.search(vectors, 9_999, SearchParams(), matches)
    assert sorted(found.ids[found.ids >= 0].tolist()) == rows
    assert plan.strategy is (PlanStrategy.EXACT if rows else PlanStrategy.EMPTY)


@settings(deadline=None, max_examples=60)
@given(documents, st.randoms(use_true_random=False), st.sampled_from([1, 70]))
def test_counts_and_first_values_are_those_of_the_documents(
    several: list[Attributes], random: Any, copies: int
) -> None:
    several = several * copies
    attributes, _ = view_of(several)
    chosen = np.array([random.random() < 0.5 for _ in several])
    for name in VALUES:
        values = [one.get(name) for one in several]
        lists = [v if isinstance(v, list) else [] if v is None else [v] for v in values]
        counted = attributes.counts(name, chosen)
        mine = [one for one, taken in zip(lists, chosen, strict=True) if taken]
        assert counted.counts == Counter(value for one in mine for value in set(one))
        assert counted.missing == sum(not one for one in mine)
        first = attributes.first_values(name, np.arange(len(several)))
        assert first == [one[0] if one else None for one in lists]


def test_every_element_counts_of_a_list_in_a_column_of_single_values() -> None:
    attributes, _ = view_of([{"kind": ["a", "b"]}, {"kind": "b"}, {"kind": []}, {}])
    assert attributes.matches(f.Equals("kind", "b")).documents.tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert attributes.first_values("kind", np.arange(4)) == ["a", "b", None, None]


def test_negative_zero_equals_zero() -> None:
    attributes, _ = view_of([{"price": -0.0}, {"price": 0}])
    assert attributes.matches(f.In("price", (0.0, 1.0))).documents.all()


def test_a_value_of_another_kind_matches_no_filter() -> None:
    attributes, _ = view_of([{"year": "2001", "kind": 3}, {"year": 2001.5}, {"year": True}])
    assert not attributes.matches(f.Exists("year")).documents.any()
    assert not attributes.matches(f.Exists("kind")).documents.any()


@pytest.mark.parametrize("condition", [f.Equals("yaer", 3), f.Equals("year", "x")])
def test_errors_equal_those_of_a_snapshot(condition: f.Filter) -> None:
    attributes, _ = view_of([{"year": 1}])
    empty = pa.table({field.name: pa.array([], _type(field.name)) for field in FIELDS})
    with pytest.raises(InvalidRequest) as of_snapshot:
        AttributeTable(empty, FIELDS, 0).check(condition)
    with pytest.raises(InvalidRequest) as live:
        attributes.matches(condition)
    assert str(live.value) == str(of_snapshot.value)
    assert live.value.field == of_snapshot.value.field


def _type(name: str) -> Any:
    return {
        "kind": pa.string(),
        "made": pa.timestamp("us", "UTC"),
        "price": pa.float64(),
        "sold": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "year": pa.int64(),
    }[name]


def test_without_attributes_every_filter_is_rejected() -> None:
    store = LiveDocuments()
    store.add(LiveItem("a", "", "", {"x": 1}, 1, None), np.zeros((1, 2), int))
    view = store.view(np.ones(1, np.bool_))
    columns = LiveColumns(())
    columns.catch_up(store.items * 300)
    index = LiveVectors(2).view(view.names_of)
    with pytest.raises(InvalidRequest, match="no attribute 'x'"):
        columns.view(store.items * 300, view, index).matches(f.Exists("x"))


def test_a_view_finds_the_documents_alive_at_its_creation() -> None:
    store = LiveDocuments()
    alive: list[bool] = []
    views = []
    for version, name in enumerate(["b", "a", "b", "c", "b", "a"]):
        if name in store.newest:
            alive[store.newest[name]] = False
        store.add(LiveItem(name, "", "", {}, version, None), np.zeros((1, 2), int))
        alive.append(True)
        views.append(store.view(np.array(alive)))
    versions = [{views[0].version(d) for d in view.following("")} for view in views]
    assert versions == [{0}, {0, 1}, {1, 2}, {1, 2, 3}, {1, 3, 4}, {3, 4, 5}]
    for view, there in zip(views, versions, strict=True):
        found = [view.find(name) for name in "abcd"]
        assert {view.version(d) for d in found if d is not None} == there
        ids = view.ids(np.array([*view.following("a")], int))
        assert ids == sorted({view.id(d) for d in found if d is not None} - {"a"})
