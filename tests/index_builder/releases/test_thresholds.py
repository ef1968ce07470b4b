"""Thresholds and judged queries in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.evaluation.retrieval_metrics import JudgedDataset
from index_builder.releases.judgements import keep_judgements, read_judgements
from index_builder.releases.thresholds import (
    NAMES,
    GateLimits,
    current_thresholds,
    parse_limits,
    set_thresholds,
)
from nearline.errors import InvalidRequest, SnapshotCorrupt
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2
from tests.nearline.store.conftest import s3, s3_endpoint  # noqa: F401  fixtures
from tests.nearline.store.overtaken import overtaken


def test_limits_are_those_of_the_contract() -> None:
    fields = release_pb2.GateThresholds.DESCRIPTOR.fields
    numbers = {one.name for one in fields if one.cpp_type == one.CPPTYPE_DOUBLE}
    assert set(NAMES) < numbers


def test_without_a_record_the_defaults_hold(tmp_path: Path) -> None:
    record = current_thresholds(Store(tmp_path), "default")
    assert (record.number, parse_limits(record)) == (0, GateLimits())
    assert (GateLimits().min_recall, GateLimits().min_ndcg, GateLimits().max_missing) == (
        0.95,
        -1,
        0.02,
    )


def test_records_are_added_and_the_newest_is_current(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = release_pb2.GateThresholds(min_recall=0.9, who="me", why="small index")
    assert set_thresholds(store, "default", first).number == 1
    assert set_thresholds(store, "default", release_pb2.GateThresholds()).number == 2
    names = store.files.names("default/gate/thresholds")
    assert names == ["0000000001.json", "0000000002.json"]
    assert parse_limits(current_thresholds(store, "default")) == GateLimits()
    set_thresholds(store, "default", first)
    found = current_thresholds(store, "default")
    assert (found.number, found.why, parse_limits(found).min_recall) == (3, "small index", 0.9)
    assert current_thresholds(store, "other").number == 0


def test_a_record_of_a_concurrent_process_is_kept_and_precedes(tmp_path: Path) -> None:
    other = release_pb2.GateThresholds(min_recall=0.5, who="other")
    store = overtaken(tmp_path, lambda: set_thresholds(Store(tmp_path), "default", other))
    mine = set_thresholds(store, "default", release_pb2.GateThresholds(min_recall=0.9, who="me"))
    assert (mine.number, mine.who) == (2, "me")
    assert current_thresholds(store, "default") == mine
    names = store.files.names("default/gate/thresholds")
    assert names == ["0000000001.json", "0000000002.json"]


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("min_recall", 1.01, True),
        ("max_missing", float("nan"), True),
        ("max_latency_ratio", 7.5, False),
        ("min_recall", -1.0, False),
    ],
)
def test_values_out_of_range_are_refused(
    tmp_path: Path, name: str, value: float, refused: bool
) -> None:
    record = release_pb2.GateThresholds()
    setattr(record, name, value)
    if refused:
        with pytest.raises(InvalidRequest, match=f"{name} is .* to switch the check off"):
            set_thresholds(Store(tmp_path), "default", record)
    else:
        assert set_thresholds(Store(tmp_path), "default", record).number == 1


def test_judged_queries_are_kept_once_and_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    labels = JudgedDataset(corpus=tmp_path, queries={"q": "what?"}, judgements={"q": {"d": 2}})
    digest = keep_judgements(store, "default", labels)
    assert keep_judgements(store, "default", labels) == digest
    found = read_judgements(store, "default", digest)
    assert (found.queries, found.judgements) == ({"q": "what?"}, {"q": {"d": 2}})
    (tmp_path / f"default/gate/judgements/{digest}.json").write_text("{}")
    with pytest.raises(SnapshotCorrupt, match="nearline gate set --labels"):
        read_judgements(store, "default", digest)
    with pytest.raises(SnapshotCorrupt, match="no SHA-256"):
        read_judgements(store, "default", "../../secrets")


@pytest.mark.service
def test_an_object_store_keeps_them_as_well(s3: str) -> None:  # noqa: F811
    store = Store.open(s3)
    record = release_pb2.GateThresholds(max_missing=0.5)
    assert set_thresholds(store, "default", record).number == 1
    assert parse_limits(current_thresholds(store, "default")).max_missing == 0.5
