"""The gate with live changes and recorded traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.releases.gate import GateOptions, judge
from index_builder.releases.gate_report import (
    CheckOutcome,
    GateReport,
    keep_report,
    read_report,
)
from index_builder.releases.thresholds import set_thresholds
from nearline.internal.v1 import traffic_pb2
from nearline.store.snapshot import Store
from nearline.store.traffic import write_traffic
from nearline.v1 import retrieval_pb2
from tests.index_builder.live_collection import Living
from tests.index_builder.releases.gate_snapshots import (
    calm,
    documents,
    failed,
    message,
    publish,
    queries,
    texts,
)
from tests.nearline.store.conftest import s3, s3_endpoint  # noqa: F401  fixtures

TEXTS = {f"d{n}": f"Text {n} of a few." for n in range(20)}


async def gate(living: Living, candidate: str, live: str) -> GateReport:
    options = GateOptions(embedders={"here": living.embedder})
    return await judge(living.store, "default", candidate, live, options)


@pytest.fixture
async def living(tmp_path: Path) -> Living:
    found = Living(tmp_path, shards=2)
    set_thresholds(found.store, "default", calm())
    await found.build(found.corpus(TEXTS, 10))
    found.make_log()
    found.clock.now = 20
    return found


async def test_deleted_documents_are_not_missing(living: Living) -> None:
    live = living.manifest.snapshot_id
    for number in range(5):
        await living.delete(f"d{number}")
    corpus = living.corpus(TEXTS, 10)
    built = (await living.build(corpus, promote=False)).snapshot_id
    report = await gate(living, built, live)
    assert failed(report) == []
    assert message(report, "missing").startswith(
        "0 of 20 documents are missing and were not deleted"
    )
    # Documents missing from the corpus that were not deleted are missing.
    fewer = living.corpus({key: text for key, text in TEXTS.items() if key != "d9"}, 10)
    report = await gate(living, (await living.build(fewer, promote=False)).snapshot_id, live)
    assert failed(report) == ["missing"]
    assert "1 of 20 documents are missing and were not deleted, for example 'd9'" in message(
        report, "missing"
    )


async def test_documents_in_the_log_are_not_missing(living: Living) -> None:
    # An older snapshot is promoted: the log has everything written since.
    older = living.manifest.snapshot_id
    for number in range(5):
        await living.upsert(f"new{number}", f"New {number}.")
    live = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    report = await gate(living, older, live)
    assert report.outcome("missing") is CheckOutcome.PASSED


def lists(*items: str) -> list[traffic_pb2.RecordedRequest]:
    return [
        traffic_pb2.RecordedRequest(
            recommend=retrieval_pb2.RecommendRequest(surface="item_page", item_ids=[one], n=5)
        )
        for one in items
    ]


async def test_golden_queries_are_added_to_recorded_lists(tmp_path: Path) -> None:
    made_of = documents(texts(60))
    live, same = (publish(tmp_path, made_of, golden=queries(20)) for _ in range(2))
    store = Store(tmp_path)
    set_thresholds(store, "default", calm())
    asked = [f"d{number:05d}" for number in range(40)]
    write_traffic(store, "default", lists(*asked, *asked[:10]))
    report = await judge(store, "default", same, live)
    assert (failed(report), report.source) == ([], "recorded and golden")
    assert report.requests == 70


@pytest.mark.service
async def test_snapshots_in_an_object_store_are_judged_and_reports_are_kept_there(
    s3: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    living = Living(tmp_path, url=s3)
    live = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    fewer = living.corpus({"d1": TEXTS["d1"], "d2": TEXTS["d2"]}, 10)
    built = (await living.build(fewer, promote=False)).snapshot_id
    report = await gate(living, built, live)
    assert failed(report) == ["missing"]
    path = keep_report(living.store, report)
    assert "18 of 20 documents" in read_report(living.store, path)["missing"]
