"""Hypothesis strategies for documents with attributes of every kind, and for filters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from index_builder.documents.attribute_columns import infer_fields, write_attributes
from nearline import filters as f
from nearline.contract import Attributes
from nearline.items.attributes import encode
from retrieval.index.filtering.attribute_table import AttributeTable

PLACE = "test:1"
TIME = datetime(2020, 1, 1, tzinfo=UTC)
BIG = (1 << 53) + 1
# Texts that end a literal, or say something else within one, where a filter is written as text.
HOSTILE = ('" or 1==1 or "', "'", "\\", 'a\\"', "x\ny\r\t", "漢字 😀", "\u2028", "\x01")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["a", "b", "", "é", '["a"]', *HOSTILE]),
    "year": st.integers(-2, 2) | st.sampled_from([BIG, -BIG, (1 << 63) - 1, -(1 << 63)]),
    "price": st.sampled_from([-1.5, 0.0, -0.0, 2.0, 2.5, float(1 << 53), 1e300]),
    "sold": st.booleans(),
    "made": st.integers(-2, 2).map(lambda days: TIME + timedelta(days=days, microseconds=days)),
}
LISTS: dict[str, st.SearchStrategy[Any]] = {
    f"{name}_list": st.lists(values, max_size=3) for name, values in VALUES.items()
}
NUMBERS = VALUES["year"] | VALUES["price"]
ASKED = VALUES | {"year": NUMBERS, "price": NUMBERS}
documents = st.lists(st.fixed_dictionaries({}, optional=VALUES | LISTS), min_size=1, max_size=12)


def conditions_on(name: str) -> st.SearchStrategy[f.Filter]:
    values = ASKED[name.removesuffix("_list")]
    kinds: list[st.SearchStrategy[Any]] = [
        st.just(f.Exists(name)),
        values.map(lambda value: f.Equals(name, value)),
        st.lists(values, min_size=1, max_size=3).map(lambda some: f.In(name, tuple(some))),
    ]
    if name.removesuffix("_list") in ("year", "price", "made"):
        bounds = st.dictionaries(st.sampled_from(f.BOUNDS), values, min_size=1)
        kinds.append(bounds.map(lambda given: f.Range(name, **given)))
    return st.one_of(kinds)


filters = st.recursive(
    st.sampled_from([*VALUES, *LISTS]).flatmap(conditions_on),
    lambda part: st.one_of(
        st.lists(part, max_size=3).map(lambda parts: f.All(*parts)),
        st.lists(part, max_size=3).map(lambda parts: f.Any(*parts)),
        part.map(f.Not),
    ),
    max_leaves=6,
)
DECLARED = {
    name: kind
    for name, kind in zip(VALUES, ("string", "int", "double", "bool", "time"), strict=True)
}
DECLARED |= {f"{name}_list": kind for name, kind in DECLARED.items()}


def opened(folder: str | Path, rows: Sequence[Attributes]) -> AttributeTable:
    texts = [encode(row) for row in rows]
    fields = infer_fields(((text, PLACE) for text in texts), DECLARED)
    path = Path(folder) / "attributes.arrow"
    write_attributes(path, fields, texts)
    return AttributeTable.load(path, fields, len(rows))
