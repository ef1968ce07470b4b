"""What the metrics say of a replica, and when its status is requested."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from prometheus_client import REGISTRY

from nearline.errors import DeadlineExceeded, InternalError, NearlineError, NotReady
from retrieval.live.progress import ShardProgress
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas import replica as replica_module
from retrieval.shards.replicas.replica import Replica
from tests.retrieval.shards.replicas.test_hedged_calls import KEY, Server, replicas_of, send

# Its label in the metrics; no other test may use it.
ADDRESS = "reported:1"


def is_ready() -> float | None:
    return REGISTRY.get_sample_value("nearline_retrieval_replica_ready", {"replica": ADDRESS})


def ejections(reason: str) -> float:
    labels = {"replica": ADDRESS, "reason": reason}
    return REGISTRY.get_sample_value("nearline_retrieval_replica_ejections_total", labels) or 0.0


async def eject(replica: Replica[Server], reason: str) -> None:
    """Makes a replica fail until it is ejected."""
    if reason == "silent":
        replica.peer.status_error = DeadlineExceeded("no answer")
        await replica.poll()
        return
    replica.peer.error = InternalError("broken")
    for _ in range(3):
        if reason == "slow":
            replica.record_slow()
        else:
            with pytest.raises(InternalError):
                await replica.call(KEY, send)


@pytest.mark.parametrize("reason", ["errors", "slow", "silent"])
async def test_an_ejection_is_reported_at_once(reason: str) -> None:
    (replica,) = await replicas_of(Server(ADDRESS))
    before = ejections(reason)
    assert is_ready() == 1
    await eject(replica, reason)
    assert (is_ready(), ejections(reason) - before) == (0, 1)


@pytest.mark.parametrize("error", [None, NotReady("connection reset"), InternalError("broken")])
async def test_only_a_lost_connection_makes_a_replica_unready(error: NearlineError | None) -> None:
    server = Server(ADDRESS)
    replica = Replica(server)
    assert is_ready() == 0
    await replica.poll()
    assert is_ready() == 1
    server.error = error
    with contextlib.suppress(NearlineError):
        await replica.call(KEY, send)
    assert is_ready() == (0 if isinstance(error, NotReady) else 1)
    await replica.poll()
    assert is_ready() == 1


async def test_the_next_status_is_requested_after_a_pause_or_a_lost_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica_module, "_POLL_S", 3_600.0)
    asked: list[float] = []

    class Counting(Server):
        async def status(self, timeout_s: float) -> dict[ShardKey, ShardProgress | None]:
            asked.append(timeout_s)
            await asyncio.sleep(0)
            return await super().status(timeout_s)

    replica = Replica(Counting(ADDRESS))
    watcher = asyncio.ensure_future(replica.watch())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(asked) == 1
    replica.peer.error = NotReady("connection reset")
    with pytest.raises(NotReady):
        await replica.call(KEY, send)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(asked) == 2 and is_ready() == 1
    watcher.cancel()
    await asyncio.wait((watcher,))
