"""Recorded traffic: a sample of requests, without the people behind them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import StoreError
from nearline.filters import Equals
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import (
    read_traffic,
    remove_old_traffic,
    traffic_names,
    write_traffic,
)
from retrieval.monitoring import traffic_recorder
from retrieval.monitoring.traffic_recorder import Privacy, TrafficRecorder
from retrieval.router.events import RecommendEvent, SearchEvent
from retrieval.search.collection import ServedCollection
from tests.retrieval.fakes import WordEmbedder, word_vector
from tests.retrieval.monitoring.monitored_collection import metric, searched, served_collections
from tests.retrieval.small_snapshots import FINGERPRINT, Document, write_snapshot

DIM = 8
SECRETS = ["agnes", "u-4711", "s-0815", "x-unit", "seen-by-her"]
TEXT = "what agnes bought"


async def _asked(tmp_path: Path, *, mode: c.SearchMode | None = None) -> SearchEvent:
    vectors = np.eye(DIM, dtype=np.float32)
    documents = [
        Document(id=f"d{n}", vectors=vectors[n : n + 1], text=f"word{n}", bounds=[(0, 5)])
        for n in range(DIM)
    ]
    write_snapshot(tmp_path, documents, collection="shop", language="english")
    options = c.SearchOptions(
        mode=mode, k=3, min_score=0.0, unit="x-unit", user_id="u-4711", session_id="s-0815"
    )
    async with served_collections(tmp_path) as collections:
        (served,) = collections.in_force
        text = c.Query(text=TEXT)
        return await searched(served, text, options, embedder=WordEmbedder(DIM))


def _listed(served: ServedCollection, *, unrecorded: bool = False) -> RecommendEvent:
    info = c.ReplyInfo(
        epoch=1,
        snapshot_id=served.snapshot_id,
        fingerprint="",
        coverage=c.Coverage(shards_answered=1, shards_total=1),
        list_id="list-1",
    )
    hits = [c.Recommendation(hit=c.Hit(id=f"d{n}", score=1.0 / (n + 1))) for n in range(150)]
    return RecommendEvent(
        served,
        None,
        c.Audience(user_id="u-4711", session_id="s-0815", item_ids=("d1",), surface="cart"),
        c.RecommendOptions(
            n=7,
            exclude_ids=("seen-by-her",),
            why_not_id="seen-by-her",
            unrecorded=unrecorded,
        ),
        c.RecommendReply(recommendations=hits, ignored_ids=(), info=info, policy="cart"),
        True,
    )


async def _recorded(
    tmp_path: Path, *happenings: SearchEvent | RecommendEvent, privacy: Privacy = "vectors"
) -> list[RecordedRequest]:
    store = Store(tmp_path)
    recorder = TrafficRecorder(store, 1.0, privacy)
    recorder.start()
    for one in happenings:
        recorder.observe(one)
    await recorder.close()
    return read_traffic(store, "shop", 100)[::-1]


async def test_a_text_query_is_recorded_as_its_vector(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    (request,) = await _recorded(tmp_path, one)
    data = request.SerializeToString()
    assert not [word for word in [*SECRETS, "bought"] if word.encode() in data]
    vector = word_vector(TEXT, DIM).tobytes()
    assert request.search.query.vector.data == request.vector == vector
    assert request.fingerprint == FINGERPRINT
    assert request.snapshot_id == one.collection.snapshot_id
    assert list(request.ids) == [hit.id for hit in one.hits]
    assert list(request.scores) == pytest.approx([hit.score for hit in one.hits])
    assert request.search.options.k == 3
    assert request.list_id == "a-list" and not request.personal
    # A limit to the scores of a fused search means nothing for its vector alone.
    assert not request.search.options.HasField("min_score")


async def test_privacy_texts_records_the_text(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    (request,) = await _recorded(tmp_path, one, privacy="texts")
    assert request.search.query.text == TEXT
    assert request.vector == word_vector(TEXT, DIM).tobytes()
    assert request.search.options.unit == ""


async def test_a_text_without_a_vector_is_left_out(tmp_path: Path) -> None:
    lexical = await _asked(tmp_path, mode=c.SearchMode.LEXICAL)
    assert await _recorded(tmp_path, lexical, lexical._replace(batch=None)) == []
    with_text = await _recorded(tmp_path, lexical, privacy="texts")
    assert [one.search.query.text for one in with_text] == [TEXT]


async def test_privacy_off_records_nothing(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    assert await _recorded(tmp_path, one, _listed(one.collection), privacy="off") == []
    assert traffic_names(Store(tmp_path), "shop") == []


async def test_a_recommendation_is_recorded_without_its_audience(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    (request,) = await _recorded(tmp_path, _listed(one.collection))
    data = request.SerializeToString()
    assert not [word for word in SECRETS if word.encode() in data]
    wanted = request.recommend
    assert (list(wanted.item_ids), wanted.surface, wanted.n) == (["d1"], "cart", 7)
    assert request.personal and request.list_id == "list-1"
    assert len(request.ids) == len(request.scores) == 100


async def test_watermark_and_snapshot_id_are_not_recorded(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    options = replace(
        one.options, snapshot_id="s-0815", min_watermark=b"x-unit", filter=Equals("kind", "class")
    )
    (request,) = await _recorded(tmp_path, one._replace(options=options), privacy="texts")
    written = request.search.options
    assert (written.snapshot_id, written.min_watermark) == ("", b"")
    assert written.filter.equals.field == "kind"


async def test_a_share_of_the_requests_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await _asked(tmp_path)
    draws = iter([0.0, 0.2499, 0.25, 0.9, 0.1])
    monkeypatch.setattr("random.random", lambda: next(draws))
    recorder = TrafficRecorder(Store(tmp_path), 0.25)
    for _ in range(5):
        recorder.observe(one)
    await recorder.write()
    assert len(read_traffic(Store(tmp_path), "shop", 100)) == 3


async def test_a_request_may_stay_out_of_the_record(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    hidden = one._replace(options=replace(one.options, unrecorded=True))
    assert await _recorded(tmp_path, hidden, _listed(one.collection, unrecorded=True)) == []


async def test_small_writes_fill_one_file_and_large_ones_begin_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, one = Store(tmp_path), await _asked(tmp_path)
    recorder = TrafficRecorder(store, 1.0)
    for expected in range(1, 4):
        recorder.observe(one)
        await recorder.write()
        assert len(traffic_names(store, "shop")) == 1
        assert len(read_traffic(store, "shop", 100)) == expected
    monkeypatch.setattr(traffic_recorder, "_FULL_FILE", 4)
    for expected in (1, 2):
        recorder.observe(one)
        await recorder.write()
        assert len(traffic_names(store, "shop")) == expected
    assert len(read_traffic(store, "shop", 100)) == 5


async def test_a_request_of_more_bytes_than_fit_is_not_recorded(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    long = [replace(hit, id="x" * 400) for hit in one.hits for _ in range(50)]
    assert await _recorded(tmp_path, one._replace(hits=long)) == []


async def test_a_full_file_is_written_at_once_and_the_newest_twenty_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    one = await _asked(tmp_path)
    for _ in range(25):
        write_traffic(store, "shop", [RecordedRequest()])
    written = asyncio.Event()
    loop = asyncio.get_running_loop()

    def then(store: Store, collection: str, keep: int, age: timedelta) -> int:
        removed = remove_old_traffic(store, collection, keep, age)
        loop.call_soon_threadsafe(written.set)
        return removed

    monkeypatch.setattr(traffic_recorder, "remove_old_traffic", then)
    recorder = TrafficRecorder(store, 1.0)
    recorder.start()
    for _ in range(500):
        recorder.observe(one)
    async with asyncio.timeout(20):
        await written.wait()
    await recorder.close()
    assert len(traffic_names(store, "shop")) == traffic_recorder.MAX_FILES


async def test_a_failing_store_only_loses_the_pending_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await _asked(tmp_path)
    outcomes = "nearline_retrieval_recorded_requests_total"
    before = metric(outcomes, collection="shop", outcome="failed")

    def refuse(*_: object) -> str:
        raise StoreError("no space left; free some")

    recorder = TrafficRecorder(Store(tmp_path), 1.0)
    with monkeypatch.context() as patched:
        patched.setattr(traffic_recorder, "write_traffic", refuse)
        for _ in range(2):
            recorder.observe(one)
            await recorder.write()
    assert metric(outcomes, collection="shop", outcome="failed") == before + 2
    assert [record.message for record in caplog.records] == [
        "requests are not recorded; logged once"
    ]
    recorder.observe(one)
    await recorder.write()
    assert len(read_traffic(Store(tmp_path), "shop", 100)) == 1


async def test_requests_are_dropped_while_the_queue_is_full(tmp_path: Path) -> None:
    one = await _asked(tmp_path)
    recorder = TrafficRecorder(Store(tmp_path), 1.0)
    outcomes = "nearline_retrieval_recorded_requests_total"
    before = metric(outcomes, collection="shop", outcome="dropped")
    for _ in range(2_003):
        recorder.observe(one)
    assert metric(outcomes, collection="shop", outcome="dropped") == before + 3
