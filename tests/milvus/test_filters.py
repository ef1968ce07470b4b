"""Expressions of filters on a real Milvus match the same rows as FAISS."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

from nearline import filters as f
from nearline.contract import Attributes
from nearline.errors import Unsupported
from retrieval.milvus.filters import MAX_EXPRESSION_BYTES, any_of, filter_expression
from tests.milvus.conftest import AttributeRows
from tests.retrieval.index.filtering.filter_strategies import (
    BIG,
    DECLARED,
    HOSTILE,
    TIME,
    VALUES,
    documents,
    filters,
    opened,
)

# A server makes 150 histories of rows visible, one after another.
pytestmark = [pytest.mark.milvus, pytest.mark.timeout(600)]
LEAST = -(1 << 63)


def cannot(condition: f.Filter) -> bool:
    """Returns whether a filter is unsupported: a range over lists, or the minimum int64 in one."""
    for one in f.conditions(condition):
        if one.field in VALUES:
            continue
        values = one.values if isinstance(one, f.In) else (getattr(one, "value", None),)
        if isinstance(one, f.Range) or (one.field == "year_list" and LEAST in values):
            return True
    return False


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rows=documents, filter=filters)
@example(rows=[{}, {"year": 1}, {"year": 3}], filter=f.Not(f.Range("year", gte=2)))
@example(rows=[{"year": LEAST}, {"year": LEAST + 1}, {}], filter=f.Range("year", lte=LEAST))
@example(rows=[{"year": LEAST}, {"year": LEAST + 1}, {}], filter=f.Range("year", gt=LEAST))
@example(rows=[{"year": LEAST}, {"year": LEAST + 1}, {}], filter=f.Range("year", gte=LEAST))
@example(rows=[{"year": LEAST}, {"year": LEAST + 1}, {}], filter=f.Not(f.Range("year", lt=LEAST)))
@example(rows=[{"year": LEAST}, {"year": LEAST + 1}, {}], filter=f.Not(f.Equals("year", LEAST)))
@example(rows=[{"year": BIG}, {"year": BIG - 1}], filter=f.Equals("year", float(BIG - 1)))
@example(rows=[{"kind": '["a"]'}, {}], filter=f.Not(f.Equals("kind", "a")))
@example(rows=[{"kind_list": []}, {}], filter=f.Exists("kind_list"))
def test_milvus_finds_what_we_find(
    attribute_rows: AttributeRows, rows: Sequence[Attributes], filter: f.Filter
) -> None:
    single = frozenset(VALUES)
    if cannot(filter):
        with pytest.raises(Unsupported, match="has lists"):
            filter_expression(filter, DECLARED, single)
        return
    with TemporaryDirectory() as folder:
        wanted = np.flatnonzero(opened(folder, rows).matching(filter)).tolist()
    attribute_rows.put(rows)
    assert attribute_rows.matching(filter_expression(filter, DECLARED, single)) == wanted


def test_a_single_value_counts_as_a_list_of_one(attribute_rows: AttributeRows) -> None:
    rows: list[Attributes] = [{"t": "a"}, {"t": ["b", "a"]}, {"t": '["a"]'}, {"t": []}, {}]
    attribute_rows.put(rows)

    def found(filter: f.Filter) -> list[int]:
        return attribute_rows.matching(filter_expression(filter, {"t": "string"}, frozenset()))

    assert found(f.Equals("t", "a")) == [0, 1]
    assert found(f.Not(f.Equals("t", "a"))) == [2, 3, 4]
    assert found(f.In("t", ("b", '["a"]'))) == [1, 2]
    assert found(f.Not(f.In("t", ("b", '["a"]')))) == [0, 3, 4]
    assert found(f.Exists("t")) == [0, 1, 2, 3]
    assert found(f.Not(f.Exists("t"))) == [4]


def test_exactly_the_given_text_is_found(
    attribute_rows: AttributeRows,
) -> None:
    texts = [*HOSTILE, "a", "", "%", "' or 1==1 or '", "é", "e\u0301", "\\n", "\n", "\\u0041", "A"]
    rows: list[Attributes] = [{"one": text, "some": [text, "z"]} for text in texts]
    attribute_rows.put(rows)
    kinds = {"one": "string", "some": "string"}
    for at, text in enumerate(texts):
        for field in kinds:
            for filter in (f.Equals(field, text), f.In(field, (text, "absent"))):
                written = filter_expression(filter, kinds, frozenset({"one"}))
                assert attribute_rows.matching(written) == [at], filter
            written = filter_expression(f.Not(f.Equals(field, text)), kinds, frozenset({"one"}))
            assert len(attribute_rows.matching(written)) == len(texts) - 1


@pytest.mark.parametrize(
    "name", ["a.b", "a/b", "~a~0", "é 漢", " a ", "1", "or", "a == 1", "(", "$"]
)
def test_an_attribute_is_found_by_its_name(attribute_rows: AttributeRows, name: str) -> None:
    attribute_rows.put([{name: 1}, {"other": 1}])
    kinds = {name: "int"}
    for single in (frozenset[str](), frozenset({name})):
        for filter in (f.Exists(name), f.Equals(name, 1)):
            assert attribute_rows.matching(filter_expression(filter, kinds, single)) == [0]
            assert attribute_rows.matching(filter_expression(f.Not(filter), kinds, single)) == [1]


def test_any_of_matches_values_of_columns(attribute_rows: AttributeRows) -> None:
    attribute_rows.put([{}, {}, {}])
    assert attribute_rows.matching(any_of("chunk", [0, 2, 7])) == [0, 2]
    assert attribute_rows.matching(any_of("chunk", [])) == []
    assert attribute_rows.matching(any_of("key", list(HOSTILE))) == []


def test_the_longest_and_deepest_expressions_work(
    attribute_rows: AttributeRows,
) -> None:
    years = (MAX_EXPRESSION_BYTES - 1_000) // len('attributes["year"] == 1000 or ')
    attribute_rows.put(
        [{"year": 1000}, {"year": 999 + years}, {"year": 1000 + years}, {"made": TIME}]
    )
    many = f.In("year", tuple(range(1000, 1000 + years)))
    kinds = {"year": "int", "made": "time"}
    single = frozenset(kinds)
    assert attribute_rows.matching(filter_expression(many, kinds, single)) == [0, 1]
    assert attribute_rows.matching(filter_expression(f.Not(many), kinds, single)) == [2, 3]
    deep: f.Filter = f.Exists("made")
    for number in range(15):
        # As wide as makes three levels of parentheses of each, and the way down is the longest.
        others = [f.Equals("year", number)] * 65
        deep = f.Not(deep) if number == 7 else (f.Any if number % 2 else f.All)(deep, *others)
    rows = [{"year": year} for year in range(16)] + [{"made": TIME}]
    attribute_rows.put(rows)
    wanted = [at for at, row in enumerate(rows) if f.admits(deep, row)]
    assert attribute_rows.matching(filter_expression(deep, kinds, single)) == wanted
