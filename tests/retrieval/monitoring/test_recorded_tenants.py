"""Recorded requests of tenants: what each saw, for a replay that no caller can ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from index_builder.releases.probes import probes_for
from index_builder.releases.replay import prepare_request
from index_builder.releases.snapshot_loader import load_snapshot
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.method_guard import acting_for, current_caller
from nearline.access.readers import ReaderFilter
from nearline.contract import Item, Query, RecommendOptions, SearchOptions
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import decode_traffic, traffic_names
from retrieval.embedders.endpoints import Embedders
from retrieval.monitoring.traffic_recorder import TrafficRecorder
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.recommend.policies import default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.router.service import RetrievalService
from tests.nearline.access.test_rights import SERVICES
from tests.retrieval.monitoring.monitored_collection import served_collections

DIM = 8
READERS = [("public", "tenant:a", "tenant:b")[number % 3] for number in range(DIM)]
TENANTS = ("a", "b")


def readable(tenant: str) -> set[str]:
    return {f"i{n}" for n, one in enumerate(READERS) if one in ("public", f"tenant:{tenant}")}


@pytest.fixture(name="store")
async def give_store(tmp_path: Path) -> Store:
    """Returns a store with the recorded searches and lists of two tenants, 3 each."""
    vectors = np.eye(DIM, dtype=np.float32)
    items = [
        Item(id=f"i{n}", text=f"text {n}", vector=vectors[n], attributes={"readers": [one]})
        for n, one in enumerate(READERS)
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path)))
    store, readers = Store(tmp_path), ReaderFilter("readers")
    recorder = TrafficRecorder(store, 1.0, "texts")

    def visible() -> c.Filter | None:
        return readers.visible_to(current_caller())

    async with served_collections(tmp_path) as collections:
        service = RetrievalService(
            Embedders({}),
            collections,
            observe=recorder.observe,
            visible=visible,
        )
        recommender = RecommendationService(
            collections, default_policies(), observe=recorder.observe, visible=visible
        )
        for tenant in TENANTS:
            with acting_for(Caller(tenant, ("staff",), name=f"key-of-{tenant}")):
                await service.search(Query(vector=vectors[0]), SearchOptions(k=DIM))
                words = SearchOptions(k=DIM, mode=c.SearchMode.LEXICAL, unit=f"ann-of-{tenant}")
                await service.search(Query(text="text"), words)
                audience = c.Audience(user_id=f"ann-of-{tenant}", session_id=f"session-of-{tenant}")
                await recommender.recommend(audience, RecommendOptions(n=DIM))
    await recorder.write()
    return store


async def test_a_replay_shows_each_tenants_requests_that_tenants_items(store: Store) -> None:
    (current,) = read_current_snapshots(store, ())
    async with load_snapshot(store, "default", current.snapshot_id, {}) as loaded:
        probes = probes_for(store, "default", loaded, 100).probes
        assert len(probes) == 6
        # Newest first.
        for probe, tenant in zip(probes, "bbbaaa", strict=True):
            answer = await (await prepare_request(loaded, probe))()
            assert set(answer.ids) == readable(tenant)


def test_no_record_says_who_asked(store: Store) -> None:
    (name,) = traffic_names(store, "default")
    path = Path(store.url) / "default" / "traffic" / name
    assert path.stat().st_mode & 0o077 == 0
    requests = decode_traffic(path.read_bytes())
    for request, tenant in zip(requests, "aaabbb", strict=True):
        assert set(request.ids) == readable(tenant)
        text = str(request)
        assert "ann-of" not in text and "session-of" not in text and "key-of" not in text
        # It is replayed as its tenant, whose name is in the filter, and sees no other.
        assert f"tenant:{tenant}" in text and f"tenant:{'ab'.replace(tenant, '')}" not in text


def test_no_method_returns_a_recorded_request() -> None:
    """Operators read the files of the store; no caller of a service can."""

    def reachable(message: Descriptor, seen: set[str]) -> set[str]:
        if message.full_name not in seen:
            seen.add(message.full_name)
            for field in message.fields:
                if field.message_type is not None:
                    reachable(field.message_type, seen)
        return seen

    for service in SERVICES.values():
        for method in service.methods:
            found = reachable(method.output_type, set()) | reachable(method.input_type, set())
            assert RecordedRequest.DESCRIPTOR.full_name not in found, method.full_name
