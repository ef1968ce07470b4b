"""Documents as rows: lossless, and validated against the limits of Milvus."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.errors import InvalidRequest
from nearline.times import from_us, to_us
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.milvus.layout import NEVER_EXPIRES, collection_name, make_key, parse_key
from retrieval.milvus.rows import AS_WRITTEN, make_rows, parse_attributes
from tests.retrieval.index.filtering.filter_strategies import BIG, DECLARED, LISTS, TIME, VALUES

WHOLE = np.array([[0, 1]])
# Names of the filters' attributes, and one that no column holds.
ANY_VALUES = st.one_of(*VALUES.values(), *LISTS.values())
ANY_ATTRIBUTES = st.dictionaries(st.sampled_from([*DECLARED, "undeclared"]), ANY_VALUES)


def made(
    text: str = "a",
    bounds: NDArray[np.int64] = WHOLE,
    *,
    document_id: str = "d",
    title: str = "",
    attributes: Attributes | None = None,
    kinds: dict[str, str] | None = None,
    analyser: Analyser | None = None,
) -> list[dict[str, Any]]:
    return make_rows(
        document_id,
        title,
        text,
        attributes or {},
        version=7,
        expires=None,
        bounds=bounds,
        vectors=np.arange(2 * len(bounds), dtype=np.float32).reshape(-1, 2),
        kinds=DECLARED if kinds is None else kinds,
        analyser=analyser,
    )


def put_together(rows: list[dict[str, Any]]) -> str:
    text = ""
    for row in rows:
        text += str(row["gap"])
        text += str(row["passage"])[len(text) - row["start"] :]
    return text + str(rows[-1]["rest"])


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, NDArray[np.int64]]:
    """Draws a text and chunks of it that may overlap, hold one another, and leave gaps."""
    text = draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
    places = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(places, places).map(sorted), min_size=1, max_size=8))
    return text, np.array(sorted(spans), np.int64)


@given(cut_texts())
@example(("", np.array([[0, 0]])))
@example(("abcdef", np.array([[1, 5], [2, 3], [5, 6]])))
def test_gaps_passages_and_rest_make_up_the_text(
    cut: tuple[str, NDArray[np.int64]],
) -> None:
    text, bounds = cut
    rows = made(text, bounds)
    assert put_together(rows) == text
    assert [row["passage"] for row in rows] == [text[a:b] for a, b in bounds.tolist()]
    assert [[row["start"], row["stop"]] for row in rows] == bounds.tolist()


def test_a_row_follows_the_layout() -> None:
    rows = make_rows(
        "d",
        "The cats",
        "  one cat. two cats. ",
        {"year": 3},
        version=7,
        expires=from_us(5),
        bounds=np.array([[2, 10], [11, 20]]),
        vectors=np.array([[1, 0], [0, 1]], np.float32),
        kinds=DECLARED,
        analyser=Analyser("english", {"the"}),
    )
    vectors = [row.pop("vector").tolist() for row in rows]
    assert vectors == [[1, 0], [0, 1]]
    common = {"document": "d", "title": "The cats", "version": 7, "expires": 5}
    common["attributes"] = {"year": 3}
    first = {"key": "d\x01000000", "chunk": 0, "start": 2, "stop": 10}
    first |= {"gap": "  ", "passage": "one cat.", "rest": "", "analysed": "cat one cat"}
    second = {"key": "d\x01000001", "chunk": 1, "start": 11, "stop": 20}
    second |= {"gap": " ", "passage": "two cats.", "rest": " ", "analysed": "cat two cat"}
    assert rows == [common | first, common | second]
    assert made()[0]["expires"] == NEVER_EXPIRES
    assert "analysed" not in made()[0]


@given(ANY_ATTRIBUTES)
@example({"price": [BIG, 2.5, "x"], "made": [TIME, 3], "year": True, "undeclared": TIME})
def test_attributes_come_back_as_they_were_written(attributes: Attributes) -> None:
    stored = json.loads(json.dumps(made(attributes=attributes)[0]["attributes"]))
    back = parse_attributes(stored, DECLARED)
    assert back == attributes
    assert {name: _types(value) for name, value in back.items()} == {
        name: _types(value) for name, value in attributes.items()
    }


def _types(value: object) -> object:
    return [type(one) for one in value] if isinstance(value, list) else type(value)


def test_filters_see_values_in_the_kind_of_their_column() -> None:
    attributes: Attributes = {
        "price": 3,
        "made": TIME,
        "year": "x",
        "year_list": [1, 2.5],
        "undeclared": 1,
        "sold": None,
        "kind_list": [],
    }
    stored = made(attributes=attributes)[0]["attributes"]
    as_written = stored.pop(AS_WRITTEN)
    assert stored == {"price": 3.0, "made": to_us(TIME), "year_list": [1], "kind_list": []}
    assert type(stored["price"]) is float
    assert as_written == {"price": 3, "year": "x", "year_list": [1, 2.5], "undeclared": 1}


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"document_id": "a\0"}, "id", r"U\+0000.*use another id"),
        ({"document_id": "a\x01b"}, "id", r"U\+0001.*use another id"),
        ({"title": "a\0b"}, "title", r"U\+0000.*remove it"),
        ({"text": "ab\0", "bounds": np.array([[0, 1]])}, "text", r"U\+0000.*remove it"),
        ({"title": "é" * 32_768}, "title", "65,536 bytes.* 65,535: shorten"),
        ({"text": "a" * 65_536, "bounds": np.array([[0, 65_536]])}, "text", "split documents into"),
        ({"text": "a" * 65_537, "bounds": np.array([[0, 1]])}, "text", "65,536 bytes"),
        ({"attributes": {"kind": "a" * 65_536}}, "attributes", "65,547 bytes.* 65,536. Remove"),
        ({"attributes": {AS_WRITTEN: 1}}, "attributes", "reserved.*rename"),
    ],
)
def test_documents_beyond_the_limits_are_rejected(
    given: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        made(**given)
    assert caught.value.field == field


def test_the_longest_texts_and_attributes_are_accepted() -> None:
    longest = "a" * 65_535
    made(longest, np.array([[0, 65_535]]), title=longest)
    made(attributes={"kind": "a" * (65_536 - len('{"kind":""}'))})


def test_analysed_texts_that_grow_too_long_are_rejected() -> None:
    # One sign that NFKC makes 18 of.
    text = "\ufdfa" * 4_000
    made(text, np.array([[0, 4_000]]))
    with pytest.raises(InvalidRequest, match="split documents into chunks"):
        made(text, np.array([[0, 4_000]]), analyser=Analyser("none"))


ids = st.text(st.characters(exclude_characters="\0\x01", exclude_categories=["Cs"]), min_size=1)


@given(ids, st.integers(0, 999_999), ids, st.integers(0, 999_999))
def test_keys_sort_by_id_then_chunk(a: str, m: int, b: str, n: int) -> None:
    assert parse_key(make_key(a, m)) == (a, m)
    assert (make_key(a, m).encode() < make_key(b, n).encode()) == ((a, m) < (b, n))


names = st.text("ab0_-", min_size=1, max_size=4)


@given(names, names, names, names)
def test_each_snapshot_has_a_milvus_collection_of_its_own(
    a: str, one: str, b: str, other: str
) -> None:
    assert (collection_name(a, one) == collection_name(b, other)) == ((a, one) == (b, other))


def test_the_longest_names_are_short_enough() -> None:
    name = collection_name("-" * 63, "20261125T004218Z-1f3a9c")
    assert len(name) <= 255
    assert name.replace("_", "").isalnum()
