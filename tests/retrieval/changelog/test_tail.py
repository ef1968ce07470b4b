"""How far the tail of a log reads, and when it asks for the head of the log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nearline.errors import NearlineError, NotReady, SnapshotMismatch
from nearline.retry import Backoff
from nearline.store.snapshot import PARTITIONS
from nearline.v1 import snapshot_pb2
from retrieval.changelog import tail as under_test
from retrieval.changelog.change_log import LogState
from retrieval.changelog.records import ChangeEntry, ChangeWrite
from retrieval.changelog.tail import LogTail
from retrieval.protocols.watermark import Watermark
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.retrieval.live.followed_collection import in_partition, upsert

PARTITION = 3
LIMIT = 8


class CountedLog(MemoryLog):
    """Counts requests for its state. replaced_by: Id of the log that took its place."""

    def __init__(self) -> None:
        super().__init__()
        self.states = 0
        self.replaced_by = ""

    async def state(self) -> LogState:
        self.states += 1
        if self.replaced_by:
            return LogState(Watermark(self.replaced_by), Watermark(self.replaced_by))
        return await super().state()

    async def write(self, count: int) -> None:
        """Appends changes of one partition."""
        ids = in_partition(PARTITION, count)
        await self.append([ChangeWrite(upsert(one)) for one in ids])


class Tail:
    """The tail of a log that is back after three failed reads. outages: Their errors."""

    def __init__(self, log: CountedLog) -> None:
        self.log = log
        self.outages: list[NearlineError] = []
        self.tail = LogTail(
            log, lambda: [log.log_id], self._record, limit=LIMIT, backoff=Backoff(0.001)
        )

    def _record(self, error: NearlineError) -> None:
        self.outages.append(error)
        self.log.away = len(self.outages) < 3

    async def locate(self) -> None:
        await self.tail.locate(snapshot_pb2.Manifest(change_log_id=self.log.log_id))
        self.tail.seek(dict.fromkeys(range(PARTITIONS), 0))
        self.log.states = 0

    async def read(self) -> list[int]:
        """Returns the positions of the next entries."""
        entries: Sequence[ChangeEntry] = await self.tail.read()
        return [entry.position for entry in entries]


@pytest.fixture(name="tail")
def give_tail(monkeypatch: pytest.MonkeyPatch) -> Tail:
    monkeypatch.setattr(under_test, "_MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(under_test, "_HEAD_INTERVAL_S", 3600.0)
    return Tail(CountedLog())


async def test_a_log_that_reading_its_state_creates_is_known_afterwards(tail: Tail) -> None:
    log, manifest = tail.log, snapshot_pb2.Manifest()
    # The store names no log before the first request for its state.
    created = LogTail(
        log,
        lambda: [log.log_id] if log.states else [],
        tail.outages.append,
        limit=LIMIT,
        backoff=Backoff(0.001),
    )
    assert (await created.locate(manifest)).log_id == log.log_id
    assert created.log_ids == [log.log_id]


async def test_the_initial_head_is_reached_when_all_of_it_was_read(tail: Tail) -> None:
    await tail.log.write(LIMIT + 2)
    await tail.locate()
    assert tail.tail.head[PARTITION] == LIMIT + 2
    assert not tail.tail.at_initial_head
    assert await tail.read() == [*range(1, LIMIT + 1)]
    assert not tail.tail.at_initial_head
    assert await tail.read() == [LIMIT + 1, LIMIT + 2]
    assert tail.tail.at_initial_head


@pytest.mark.parametrize(
    ("written", "head", "states"),
    [(1, 1, 0), (LIMIT // 2 - 1, LIMIT // 2 - 1, 0), (LIMIT // 2, LIMIT // 2, 1), (20, 20, 1)],
)
async def test_the_head_is_requested_after_a_large_read(
    tail: Tail, written: int, head: int, states: int
) -> None:
    await tail.locate()
    await tail.log.write(written)
    assert await tail.read() == [*range(1, min(written, LIMIT) + 1)]
    assert (tail.tail.head[PARTITION], tail.log.states) == (head, states)


@pytest.mark.parametrize(("interval_s", "states"), [(3600.0, 1), (0.0, 3)])
async def test_the_head_is_requested_once_an_interval(
    tail: Tail, monkeypatch: pytest.MonkeyPatch, interval_s: float, states: int
) -> None:
    monkeypatch.setattr(under_test, "_HEAD_INTERVAL_S", interval_s)
    await tail.locate()
    await tail.log.write(3 * LIMIT)
    for _ in range(3):
        await tail.read()
    assert tail.log.states == states


async def test_a_replaced_log_is_noticed_at_the_next_request_for_the_head(tail: Tail) -> None:
    await tail.locate()
    await tail.log.write(LIMIT)
    tail.log.replaced_by = "another"
    with pytest.raises(SnapshotMismatch, match="another has replaced"):
        await tail.read()
    assert tail.outages == []


async def test_reading_goes_on_after_an_outage_that_is_reported(tail: Tail) -> None:
    await tail.locate()
    await tail.log.write(2)
    tail.log.away = True
    assert await tail.read() == [1, 2]
    assert [type(one) for one in tail.outages] == [NotReady] * 3
