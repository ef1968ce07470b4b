"""Reports on live changes with a change log that can be read, and with one that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearline.errors import NotReady
from nearline.store.snapshot import Store, partition_of, shard_of
from retrieval.changelog.archive import archive_changes
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.live.progress import ShardProgress
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.router.live_reports import LiveReport, LiveReporter
from tests.retrieval.changelog.memory_log import MemoryLog

SERVED = cast(Any, SimpleNamespace(name="default", snapshot_id="s1", shards=((), ())))


class Replicas:
    """Replicas that have applied a watermark. stale: Why they may be behind."""

    def __init__(self, *applied: Watermark, stale: str = "") -> None:
        self._progress = [ShardProgress(applied=AppliedState(one, stale)) for one in applied]

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        return {0: self._progress}


def reporter(root: Path, replicas: Replicas, log: object) -> LiveReporter:
    return LiveReporter(
        Store(root), cast(Any, SimpleNamespace(log=lambda _: log)), cast(Any, replicas)
    )


async def report_of(made: LiveReporter) -> LiveReport:
    report = await made.report(SERVED)
    assert report is not None
    return report


async def log_with(changes: int) -> tuple[MemoryLog, int]:
    """Returns a log with changes of one item in shard 0 of two, and its partition."""
    log = MemoryLog()
    name = next(one for one in map(str, range(100)) if shard_of(one, 2) == 0)
    for _ in range(changes):
        await log.append([ChangeWrite(Change(document_id=name, kind=ChangeKind.UPSERT))])
    return log, partition_of(name)


async def test_changes_that_are_not_applied_or_not_archived_are_counted(tmp_path: Path) -> None:
    log, partition = await log_with(5)
    log_id = (await log.state()).head.log_id
    applied = [Watermark(log_id).advanced({partition: one}) for one in (4, 2)]
    made = reporter(tmp_path, Replicas(*applied), log)
    report = await report_of(made)
    assert (report.log_id, report.behind, report.not_archived) == (log_id, 3, 5)
    assert report.problem == "" and report.archive_time is None
    await archive_changes(Store(tmp_path), log)
    report = await report_of(made)
    assert (report.behind, report.not_archived) == (3, 0)
    assert report.archive_time is not None


async def test_a_replica_of_another_log_lacks_every_change(tmp_path: Path) -> None:
    log, _ = await log_with(5)
    report = await report_of(reporter(tmp_path, Replicas(Watermark("other", (9,) * 64)), log))
    assert report.behind == 5


class FailingLog:
    """A log that cannot be read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def state(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "stale", "problem"),
    [
        (NotReady("Redis is away"), "", "the change log: Redis is away"),
        (TimeoutError(), "", "the change log: it answers too slowly"),
        (NotReady("Redis is away"), "a replica is behind", "a replica is behind"),
    ],
)
async def test_a_log_that_cannot_be_read_is_a_problem_unless_a_replica_reports_one(
    tmp_path: Path, error: Exception, stale: str, problem: str
) -> None:
    replicas = Replicas(Watermark("log"), stale=stale)
    report = await report_of(reporter(tmp_path, replicas, FailingLog(error)))
    assert (report.problem, report.log_id) == (problem, "log")


async def test_without_a_change_log_the_furthest_replica_of_each_shard_is_reported(
    tmp_path: Path,
) -> None:
    def replica(at: int, rows: int, behind: int, day: int, stale: str = "") -> ShardProgress:
        return ShardProgress(
            applied=AppliedState(Watermark("log").advanced({0: at}), stale),
            rows=rows,
            hidden_rows=10 * rows,
            behind=behind,
            oldest_change=datetime(2026, 1, day, tzinfo=UTC),
        )

    shards = {
        0: [replica(5, 1, 7, 1, "it is late"), replica(9, 2, 3, 4)],
        1: [replica(8, 3, 4, 3), replica(2, 5, 9, 2)],
        2: [],
    }
    provider = SimpleNamespace(progress=lambda collection, snapshot_id: shards)
    made = LiveReporter(Store(tmp_path), None, cast(Any, provider))
    assert await report_of(made) == LiveReport(
        log_id="log",
        problem="it is late",
        rows=5,
        hidden_rows=50,
        behind=16,
        oldest_change_time=datetime(2026, 1, 3, tzinfo=UTC),
    )
    shards.clear()
    assert await made.report(SERVED) is None
