"""Progress of replicas: on the wire, for operators, and for load balancing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from nearline.errors import NotApplied, NotReady, SnapshotMismatch
from nearline.internal.v1 import shard_pb2
from nearline.store.snapshot import Store
from retrieval.live import progress as under_test
from retrieval.live.progress import LiveState, LiveView, ShardProgress
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.router.live_reports import LiveReport, LiveReporter
from retrieval.search.collection import ServedCollection
from retrieval.shards import codec
from retrieval.shards.client import ShardKey
from retrieval.shards.provider import ShardProvider
from retrieval.shards.replicas.load_balancer import choose_replica
from retrieval.shards.replicas.replica import Peer, Replica

LOG = "0123456789abcdef0123456789abcdef"
START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ShardKey("default", "s", 0)


def told(at: int, *, partition: int = 0, stale: str = "", rows: int = 0) -> ShardProgress:
    """Returns the progress of a replica that has applied this many changes of a partition."""
    return ShardProgress(
        applied=AppliedState(Watermark(LOG).advanced({partition: at}), stale),
        rows=rows,
        dead_rows=1,
        hidden_rows=2,
        changes=at,
        behind=10 - at,
        away_s=1.5 if stale else None,
        oldest_change=START + timedelta(seconds=at),
    )


@pytest.mark.parametrize(
    "progress",
    [told(3), told(4, stale="why"), ShardProgress(applied=AppliedState(Watermark(LOG)))],
)
def test_progress_survives_the_wire_format(progress: ShardProgress) -> None:
    message = shard_pb2.LoadedShard()
    assert codec.progress_from_proto(message) is None
    codec.fill_progress(message, progress)
    parsed = shard_pb2.LoadedShard.FromString(message.SerializeToString())
    assert codec.progress_from_proto(parsed) == progress


class Replicas:
    """Two shards, the first with two replicas; the last partition belongs to the second."""

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        return {
            0: (told(3, rows=30), told(5, rows=50, stale="the log is away")),
            1: (told(7, partition=63, rows=7),),
        }


class Nobody:
    """A provider that follows no log."""

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        return {}


class Served:
    name, snapshot_id, shards = "default", "s", ((), ())


async def test_operators_see_the_size_of_the_furthest_and_the_lag_of_the_last_replica(
    tmp_path: Path,
) -> None:
    served = cast(ServedCollection, Served())
    report = await LiveReporter(Store(tmp_path), None, cast(ShardProvider, Replicas())).report(
        served
    )
    assert report == LiveReport(
        log_id=LOG,
        problem="the log is away",
        rows=57,
        hidden_rows=4,
        behind=7 + 3,
        oldest_change_time=START + timedelta(seconds=5),
    )
    assert (
        await LiveReporter(Store(tmp_path), None, cast(ShardProvider, Nobody())).report(served)
        is None
    )


async def test_a_stale_replica_is_used_only_if_no_other_is_available() -> None:
    class Server:
        def __init__(self, address: str, progress: ShardProgress | None) -> None:
            self.address = address
            self.progress = progress

        async def status(self, timeout_s: float) -> Mapping[ShardKey, ShardProgress | None]:
            return {KEY: self.progress}

    stale, fresh = (
        Replica[Peer](Server("a", told(1, stale="the log is away"))),
        Replica[Peer](Server("b", told(1))),
    )
    for one in (stale, fresh):
        await one.poll()
        one.health.record_success()
    assert {choose_replica([stale, fresh], KEY, time.monotonic()) for _ in range(20)} == {fresh}
    assert choose_replica([stale], KEY, time.monotonic()) is stale
    assert choose_replica([stale, fresh], KEY, time.monotonic(), tried=[fresh]) is stale


async def test_a_wait_ends_early_enough_for_an_answer_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "_MARGIN_S", 60.0)
    at = Watermark(LOG)
    live = LiveState(0, (5,), LiveView(AppliedState(at)))
    deadline = asyncio.get_running_loop().time() + 60.0
    with pytest.raises(NotApplied, match="has not applied 1 of"):
        await asyncio.wait_for(live.wait(at.advanced({5: 1}), deadline), 5.0)


async def test_waiting_requests_fail_on_another_log_and_on_close() -> None:
    at = Watermark(LOG).advanced({5: 1})
    further = at.advanced({5: 2})
    live = LiveState(0, (5,), LiveView(AppliedState(at)))
    await live.wait(at.advanced({6: 9}), None)
    waiting = asyncio.ensure_future(live.wait(further, None))
    await asyncio.sleep(0)
    live.publish(LiveView(AppliedState(Watermark("f" * 32))))
    with pytest.raises(SnapshotMismatch, match="belongs to change log"):
        await waiting
    live.publish(LiveView(AppliedState(at, "the log is away")))
    waiting = asyncio.ensure_future(live.wait(further, None))
    await asyncio.sleep(0)
    live.close(NotReady("it is let go of"))
    with pytest.raises(NotReady, match="let go of"):
        await waiting
    past = asyncio.get_running_loop().time() - 1
    with pytest.raises(NotApplied, match=r"has not applied 1 of .* \(the log is away\)"):
        await live.wait(further, past)
