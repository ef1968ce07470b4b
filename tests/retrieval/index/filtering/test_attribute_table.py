"""Filters over Arrow columns agree with plain Python."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nearline import filters as f
from nearline.contract import Attributes
from nearline.errors import InvalidRequest, SnapshotCorrupt
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.attribute_table import AttributeTable
from tests.retrieval.index.filtering.filter_strategies import (
    LISTS,
    VALUES,
    documents,
    filters,
    opened,
)
from tests.scale import scaled

_Kind = snapshot_pb2.AttributeField


@settings(
    deadline=None,
    max_examples=scaled(75, nightly=750),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(documents, filters)
def test_matches_agree_with_plain_python(rows: Sequence[Attributes], filter: f.Filter) -> None:
    with TemporaryDirectory() as folder:
        found = opened(folder, rows).matching(filter)
        assert found.dtype == np.bool_
        assert found.tolist() == [f.admits(filter, row) for row in rows]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(documents, st.sampled_from([*VALUES, *LISTS]), st.data())
def test_counts_and_first_values_agree_with_plain_python(
    rows: Sequence[Attributes], field: str, data: st.DataObject
) -> None:
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    with TemporaryDirectory() as folder:
        table = opened(folder, rows)
        counts = table.counts(field, chosen)
        order = np.flatnonzero(chosen)[::-1].astype(np.int64)
        firsts = table.first_values(field, order)
        assert table.most_values(field, chosen) >= len(set(firsts) - {None})
    values = [row.get(field) for row in rows]
    lists = [v if isinstance(v, list) else [] if v is None else [v] for v in values]
    wanted = Counter(
        one for some, mine in zip(lists, chosen, strict=True) if mine for one in set(some)
    )
    assert counts.counts == wanted
    assert counts.missing == sum(not some for some, mine in zip(lists, chosen, strict=True) if mine)
    assert firsts == [lists[at][0] if lists[at] else None for at in order]


def test_record_batches_are_concatenated_in_order(tmp_path: Path) -> None:
    rows: list[Attributes] = [{"year": n, "kind_list": ["a"] * (n % 3)} for n in range(9_000)]
    table = opened(tmp_path, rows)
    found = np.flatnonzero(table.matching(f.Range("year", gte=4_000, lt=8_500)))
    np.testing.assert_array_equal(found, np.arange(4_000, 8_500))
    found = np.flatnonzero(table.matching(f.Equals("kind_list", "a")))
    np.testing.assert_array_equal(found, [n for n in range(9_000) if n % 3])
    assert table.first_values("year", np.array([8_999, 0, 4_096])) == [8_999, 0, 4_096]
    assert table.most_values("kind_list", np.ones(9_000, np.bool_)) == 1
    assert table.most_values("year", np.arange(9_000) % 3 == 0) == 3_000


def test_nan_meets_no_bound(tmp_path: Path) -> None:
    path = tmp_path / "attributes.arrow"
    table = pa.table({"price": pa.array([float("nan"), 1.0, None])})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    fields = [snapshot_pb2.AttributeField(name="price", kind=_Kind.KIND_DOUBLE)]
    opened = AttributeTable.load(path, fields, 3)
    assert opened.matching(f.Range("price", gte=-1e300)).tolist() == [False, True, False]
    assert opened.matching(f.Exists("price")).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("filter", "text"),
    [
        (f.Equals("yaer", 1), r"no attribute 'yaer'; did you mean 'year'\? Attributes: kind"),
        (f.All(f.Exists("zzzzzz")), r"no attribute 'zzzzzz'. Attributes: kind"),
        (f.Equals("year", "x"), "'year' is of kind int, but the filter has a string"),
        (f.Equals("sold", 1), "'sold' is of kind bool, but the filter has an int"),
        (f.Equals("year", True), "'year' is of kind int, but the filter has a bool"),
        (f.Range("kind", gte=1), "'kind' is of kind string, but the filter has an int"),
        (f.Range("made", gte=1), "'made' is of kind time, but the filter has an int"),
    ],
)
def test_a_filter_on_unknown_attributes_or_other_kinds_is_rejected(
    tmp_path: Path, filter: f.Filter, text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        opened(tmp_path, [{"kind": "a"}]).matching(filter)


def test_the_error_names_a_snapshot_without_attributes(tmp_path: Path) -> None:
    table = AttributeTable.load(tmp_path / "none.arrow", [], 3)
    assert table.matching(f.All()).tolist() == [True] * 3
    with pytest.raises(InvalidRequest, match="has no attributes"):
        table.matching(f.Exists("a"))


def test_a_file_that_contradicts_the_manifest_is_rejected(tmp_path: Path) -> None:
    rows: list[Attributes] = [{"year": 1}]
    opened(tmp_path, rows)
    path = tmp_path / "attributes.arrow"
    year = snapshot_pb2.AttributeField(name="year", kind=_Kind.KIND_INT)
    with pytest.raises(SnapshotCorrupt, match="1 records, expected 2"):
        AttributeTable.load(path, [year], 2)
    year.kind = _Kind.KIND_STRING
    with pytest.raises(SnapshotCorrupt, match="'year' has type int64, expected string"):
        AttributeTable.load(path, [year], 1)
    path.write_bytes(json.dumps(rows).encode())
    with pytest.raises(SnapshotCorrupt, match="rebuild"):
        AttributeTable.load(path, [year], 1)


def test_an_error_names_the_request_field(tmp_path: Path) -> None:
    table = opened(tmp_path, [{"kind": "a"}])
    with pytest.raises(InvalidRequest) as caught:
        table.first_values("kin", np.array([0]))
    assert caught.value.field == "options.grouping.field"
    with pytest.raises(InvalidRequest) as caught:
        table.counts("kin", np.array([True]))
    assert caught.value.field == "facets.field"
