"""Milvus expressions of filters, without a server; see also tests/milvus."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from nearline import filters as f
from nearline.errors import InvalidRequest, Unsupported
from retrieval.milvus.filters import MAX_EXPRESSION_BYTES, any_of, filter_expression, quote
from tests.retrieval.index.filtering.filter_strategies import DECLARED, HOSTILE, VALUES

SINGLE = frozenset(VALUES)
texts = st.text(st.characters(codec="utf-8")) | st.sampled_from(HOSTILE)


@given(texts)
def test_a_quoted_text_is_one_literal(text: str) -> None:
    literal = quote(text)
    # The escapes are some of those of JSON, where a control sign may not stand as it is.
    assert json.loads(literal, strict=False) == text
    assert "\n" not in literal and "\r" not in literal


@given(texts, texts)
def test_values_appear_only_inside_literals(one: str, other: str) -> None:
    filter = f.All(f.Equals("kind", one), f.Not(f.In("kind", (one, other))))
    written = filter_expression(filter, DECLARED, SINGLE)
    for text in {quote(one), quote(other)}:
        written = written.replace(f" == {text}", " == _")
    same = ' or attributes["kind"] == _' if one != other else ""
    wanted = f'((exists attributes["kind"]) and (attributes["kind"] == _{same}))'
    if one == other:
        wanted = '((exists attributes["kind"]) and attributes["kind"] == _)'
    assert written == f'(attributes["kind"] == _ and (not ({wanted})))'


@pytest.mark.parametrize(
    ("filter", "written"),
    [
        (f.All(), "chunk >= 0"),
        (f.Any(), "chunk < 0"),
        (f.Exists("made"), '(exists attributes["made"])'),
        (f.Equals("sold", True), 'attributes["sold"] == true'),
        (f.Equals("year", 2.5), "chunk < 0"),
        (f.Equals("year", 2.0), 'attributes["year"] == 2'),
        (f.Equals("price", 2), 'attributes["price"] == 2.0'),
        (f.Equals("made", datetime(1970, 1, 2, tzinfo=UTC)), 'attributes["made"] == 86400000000'),
        (f.Range("year", gt=1.5), 'attributes["year"] > 1'),
        (f.Range("year", lt=1e300), '(exists attributes["year"])'),
        (f.Equals("year", -(1 << 63)), 'attributes["year"] < -9223372036854775807'),
        (
            f.Range("price", gte=-1, lt=0.5),
            '(attributes["price"] >= -1.0 and attributes["price"] < 0.5)',
        ),
        (
            f.Equals("year_list", 2),
            '(attributes["year_list"] == 2 or json_contains_any(attributes["year_list"], [2]))',
        ),
    ],
)
def test_filters_translate_to_expressions(filter: f.Filter, written: str) -> None:
    assert filter_expression(filter, DECLARED, SINGLE) == written


@pytest.mark.parametrize(
    ("filter", "error", "text"),
    [
        (f.Exists("yeer"), InvalidRequest, "did you mean 'year'"),
        (f.Equals("year", "x"), InvalidRequest, "of kind int, but the filter has a string"),
        (f.In("year", ()), InvalidRequest, "0 values"),
        (f.Range("year_list", gte=1), Unsupported, "'year_list' has lists"),
        (f.Equals("year_list", -(1 << 63)), Unsupported, "cannot look for -9223372036854775808"),
        (f.Equals("kind", "x" * MAX_EXPRESSION_BYTES), Unsupported, "65,560 bytes .* 65,536 are"),
    ],
)
def test_unsupported_filters_are_rejected(
    filter: f.Filter, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        filter_expression(filter, DECLARED, SINGLE)


@pytest.mark.parametrize(
    "name", ['a"b', "a'b", "a\\b", "a[0]", 'x"] == 1 or attributes["y', "a\nb"]
)
def test_a_name_that_no_path_can_express_is_rejected(name: str) -> None:
    with pytest.raises(Unsupported, match="rename it"):
        filter_expression(f.Exists(name), {name: "int"}, frozenset())


def test_any_of_lists_the_values_of_a_column() -> None:
    assert any_of("document", ["a", 'b"']) == 'document in ["a", "b\\""]'
    assert any_of("chunk", [0, 3]) == "chunk in [0, 3]"
    assert any_of("chunk", []) == "chunk < 0"
