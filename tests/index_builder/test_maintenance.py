"""Upkeep does the chores of all collections while one is built, and forgets dropped ones."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from index_builder.maintenance import Maintenance
from index_builder.pipeline import upkeep_metrics
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.releases import gate, upkeep_builds
from index_builder.releases.build_gate import gate_of_build
from index_builder.releases.gate_report import make_check
from nearline.contract import Embedder
from nearline.errors import GateFailed
from nearline.internal.v1 import change_pb2
from nearline.store.removal import remove_files, remove_older_records
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.changelog.archive import Archive
from retrieval.embedders.endpoints import Embedders
from retrieval.snapshots import aliases
from retrieval.snapshots.proposals import read_proposals
from tests import waits
from tests.index_builder.live_collection import Living
from tests.index_builder.releases.recorded_searches import record_drift
from tests.retrieval.changelog.memory_log import MemoryLog

TEXTS = {f"i{number:02d}": f"Item {number} of them." for number in range(10)}


class _Logs:
    """Change logs by collection."""

    def __init__(self, *logs: MemoryLog) -> None:
        self.logs = {log.collection: log for log in logs}

    def log(self, collection: str) -> MemoryLog:
        return self.logs[collection]

    def forget(self, collection: str) -> None:
        pass


class _SlowGate:
    """Passes no snapshot before it is opened.

    judged: Collections, in the order in which the gate was asked.
    """

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.judged: list[str] = []

    def of_build(self, force_because: str) -> object:
        judge = gate_of_build(force_because)

        async def check(
            store: Store, manifest: snapshot_pb2.Manifest, embedder: Embedder | None
        ) -> release_pb2.GateVerdict:
            self.judged.append(manifest.collection)
            await self.opened.wait()
            return await judge(store, manifest, embedder)

        return check


@contextlib.asynccontextmanager
async def _running(maintenance: Maintenance) -> AsyncIterator[None]:
    task = asyncio.create_task(maintenance.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


_until = partial(waits.until, timeout_s=20, every_s=0.01)


def _maintenance(living: Living, *logs: MemoryLog, **options: object) -> Maintenance:
    values = {"store": living.options.store, "golden_queries": 0, "age": "100000d", "every_s": 0.05}
    values["releases"] = "propose"
    config = UpkeepSettings.load(values | options)
    embedders = Embedders({"it": living.embedder})
    store = Store.open(living.options.store)
    logs = logs or (living.log,)
    return Maintenance(config, store, _Logs(*logs), embedders)  # type: ignore[arg-type]


async def _second(living: Living, name: str) -> Living:
    """Builds a second collection; upserts into it are those of the result."""
    second = copy.copy(living)
    second.log = MemoryLog(name, clock=living.clock)
    record = change_pb2.LogRecord(number=1, log_id=second.log.log_id)
    living.store.create_log_record(name, record)
    await living.build(living.corpus(TEXTS, 10), collection=name, log=second.log)
    return second


@pytest.fixture
async def living(tmp_path: Path) -> Living:
    living = Living(tmp_path)
    living.make_log()
    await living.build(living.corpus(TEXTS, 10))
    return living


@pytest.fixture
def slow_gate(monkeypatch: pytest.MonkeyPatch) -> _SlowGate:
    slow = _SlowGate()
    monkeypatch.setattr(upkeep_builds, "gate_of_build", slow.of_build)
    return slow


def _archived(living: Living, log: MemoryLog) -> int:
    return sum(Archive(living.store, log.collection, log.log_id).end().positions)


async def test_a_long_build_holds_up_no_archiving_nor_trimming_of_others(
    living: Living, slow_gate: _SlowGate
) -> None:
    # After "default" in the alphabet, so that it would wait for its turn.
    other = await _second(living, "other")
    await living.upsert("new", "New.")
    first = living.store.alias_in_force("default").current
    async with _running(_maintenance(living, living.log, other.log, share=0.05)):
        await _until(lambda: slow_gate.judged == ["default"])
        await other.upsert("more", "More.")
        await _until(lambda: _archived(living, other.log) == 1)
        # The collection that is built is archived, too, and only one is built at a time.
        await living.upsert("newer", "Newer.")
        await _until(lambda: _archived(living, living.log) == 2)
        assert slow_gate.judged == ["default"]
        slow_gate.opened.set()
        await _until(lambda: len(slow_gate.judged) >= 2)
        assert slow_gate.judged[:2] == ["default", "other"]
        await _until(lambda: living.store.alias_in_force("default").current != first)


async def test_builds_take_turns_and_a_change_is_compacted_once(
    living: Living, slow_gate: _SlowGate
) -> None:
    other = await _second(living, "other")
    await living.upsert("new", "New.")
    await other.upsert("new", "New.")
    async with _running(_maintenance(living, living.log, other.log, share=0.05)):
        await _until(lambda: bool(slow_gate.judged))
        start_s = _metric("round_timestamp_seconds")
        # Rounds end while the build runs; none of them makes the same compaction due again.
        await _until(lambda: _metric("round_timestamp_seconds") > start_s + 0.2)
        slow_gate.opened.set()
        await _until(lambda: len(slow_gate.judged) == 2)
        start_s = _metric("round_timestamp_seconds")
        await _until(lambda: _metric("round_timestamp_seconds") > start_s + 0.2)
    assert slow_gate.judged == ["default", "other"]


async def test_the_collection_under_a_build_is_not_shown_as_maintained(
    living: Living, slow_gate: _SlowGate
) -> None:
    await living.upsert("new", "New.")
    async with _running(_maintenance(living, share=0.05)):
        await _until(lambda: bool(slow_gate.judged))
        start_s = _metric("success_timestamp_seconds", collection="default")
        await living.upsert("newer", "Newer.")
        await _until(lambda: _metric("log_changes", collection="default") == 2)
        assert _metric("success_timestamp_seconds", collection="default") == start_s


async def test_a_quiet_round_reads_no_manifest_but_the_current_one(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await living.build(living.corpus(TEXTS, 10))
    await living.upsert("old", "Old.")
    maintenance = _maintenance(living)
    await maintenance.do_chores("default")
    read = set()
    real = Store.manifest

    def noted(self: Store, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        read.add(snapshot_id)
        return real(self, collection, snapshot_id)

    monkeypatch.setattr(Store, "manifest", noted)
    await maintenance.do_chores("default")
    assert read == {living.store.alias_in_force("default").current}
    await living.upsert("new", "New.")
    await maintenance.do_chores("default")
    assert read == set(living.store.snapshot_ids("default"))


async def test_no_trial_begins_during_a_build(living: Living, slow_gate: _SlowGate) -> None:
    maintenance = _maintenance(living, share=0.05)
    advanced = []

    async def advance(name: str) -> bool:
        advanced.append(name)
        return False

    maintenance._loop.advance = advance  # type: ignore[method-assign]
    await living.upsert("new", "New.")
    async with _running(maintenance):
        await _until(lambda: bool(slow_gate.judged))
        before = len(advanced)
        start_s = _metric("round_timestamp_seconds")
        await _until(lambda: _metric("round_timestamp_seconds") > start_s + 0.2)
        assert len(advanced) == before
        slow_gate.opened.set()
        await _until(lambda: len(advanced) > before)


def _metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"nearline_upkeep_{name}", labels) or 0.0


def _drop(living: Living) -> None:
    """Drops the collection as a router does, from another process."""
    store = Store.open(living.options.store)
    record = aliases.drop(store, "default")
    remove_files(store, "default", record)
    remove_older_records(store, "default", record)


async def _create_again(living: Living) -> Living:
    """Builds a collection of the same name, with another log."""
    again = Living(living.folder)
    await again.build(again.corpus(TEXTS, 10))
    again.make_log()
    return again


def _series() -> set[str]:
    """Names of the series of upkeep about the collection."""
    return {
        sample.name
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("nearline_upkeep") and "default" in sample.labels.values()
    }


async def test_a_dropped_collection_leaves_no_series(living: Living) -> None:
    maintenance = _maintenance(living)
    record_drift(living.store)
    # An earlier test of this process may have counted one, too.
    before = _metric("proposals_total", collection="default", state="open")
    async with _running(maintenance):
        await _until(lambda: bool(read_proposals(living.store, "default")))
        await _until(
            lambda: _metric("proposals_total", collection="default", state="open") == before + 1
        )
        _drop(living)
        await _until(lambda: not _series())
        # Later rounds do not bring them back.
        start_s = _metric("round_timestamp_seconds")
        await _until(lambda: _metric("round_timestamp_seconds") > start_s + 0.2)
    assert not _series()
    assert not maintenance._collections
    # Nor does the store that upkeep keeps open go on to name it.
    assert maintenance._store.collections() == []


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_collection_created_again_begins_fresh(
    living: Living, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    maintenance = _maintenance(living)
    record_drift(living.store)
    logs: _Logs = maintenance._logs  # type: ignore[assignment]
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    with monkeypatch.context() as broken:
        broken.setitem(gate._CHECKS, "recall", lambda comparison: failed)
        with pytest.raises(GateFailed):
            await maintenance.run_once("default")
    assert _metric("failed_builds", collection="default", kind="rebuild") == 1
    _drop(living)
    if noticed:
        assert not await maintenance.run_once("default")
    again = await _create_again(living)
    # The numbers of records go on, so make the epochs equal for the harder case.
    epoch = again.store.alias_in_force("default").epoch
    monkeypatch.setattr("index_builder.releases.failed_builds._Failure.epoch", epoch)
    record_drift(again.store)
    logs.logs["default"] = again.log
    assert await maintenance.run_once("default")
    assert len(read_proposals(living.store, "default")) == 1
    assert _metric("failed_builds", collection="default", kind="rebuild") == 0


async def test_a_collection_dropped_during_its_build_is_forgotten(
    living: Living, slow_gate: _SlowGate
) -> None:
    upkeep_metrics.forget("default")
    await living.upsert("new", "New.")
    maintenance = _maintenance(living, share=0.05)
    async with _running(maintenance):
        await _until(lambda: bool(slow_gate.judged))
        _drop(living)
        await _until(lambda: not _series())
        slow_gate.opened.set()
        start_s = _metric("round_timestamp_seconds")
        await _until(lambda: _metric("round_timestamp_seconds") > start_s + 0.2)
    assert not _series()
    assert not maintenance._builds._failed["compaction"]._newest
