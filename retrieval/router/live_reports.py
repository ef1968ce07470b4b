"""Reports on live changes for operators, and checks which snapshots can still be promoted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from nearline.errors import NearlineError
from nearline.store.snapshot import PARTITIONS, Store, partitions_of
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.registry import ChangeLogs
from retrieval.live.progress import ShardProgress
from retrieval.protocols.compute_threads import read_store
from retrieval.protocols.watermark import Watermark
from retrieval.search.collection import ServedCollection
from retrieval.shards.provider import ShardProvider
from retrieval.snapshots.promotable import make_promotion_check

# Time limit of a report; it contains only the data that arrived by then.
_TIMEOUT_S = 1.0


class LiveReport(NamedTuple):
    """Live changes of a collection, as the router sees them; see LiveStatus in admin.proto.

    oldest_change_time: Time of the oldest change that the snapshot lacks, timezone-aware; None if
    it lacks none. archive_time: Time of the last archive, timezone-aware; None if there is none.
    """

    log_id: str = ""
    problem: str = ""
    rows: int = 0
    hidden_rows: int = 0
    behind: int = 0
    not_archived: int = 0
    oldest_change_time: datetime | None = None
    archive_time: datetime | None = None


class LiveReporter:
    """Builds reports from the change log and the replicas.

    Args:
        store: The store.
        logs: The change logs; None if the router has none.
        provider: Provides the shards.
    """

    def __init__(self, store: Store, logs: ChangeLogs | None, provider: ShardProvider) -> None:
        self._store = store
        self._logs = logs
        self._provider = provider

    async def report(self, collection: ServedCollection) -> LiveReport | None:
        """Returns the report of a collection; None if it has no change log."""
        progress = self._provider.progress(collection.name, collection.snapshot_id)
        replicas = [one for each in progress.values() for one in each]
        if self._logs is None and not replicas:
            return None
        report = _replica_report(progress)
        if self._logs is None:
            return report
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = (await self._logs.log(collection.name).state()).head
                archived, archive_time = await read_store(
                    self._archived, collection.name, head.log_id
                )
        except (NearlineError, TimeoutError) as error:
            reason = error.message if isinstance(error, NearlineError) else "it answers too slowly"
            return report._replace(problem=report.problem or f"the change log: {reason}")
        return report._replace(
            log_id=head.log_id,
            behind=_behind(progress, head, len(collection.shards)),
            not_archived=_distance(archived, head, range(PARTITIONS)),
            archive_time=archive_time,
        )

    async def promotion_check(self, collection: str) -> Callable[[snapshot_pb2.Manifest], None]:
        """Returns a check that refuses snapshots whose log position is no longer available.

        See `make_promotion_check`.
        """
        return await make_promotion_check(self._store, self._logs, collection)

    def _archived(self, collection: str, log_id: str) -> tuple[Watermark, datetime | None]:
        from retrieval.changelog.archive import Archive

        archive = Archive(self._store, collection, log_id)
        made_us = archive.made_us()
        return archive.end(), from_us(made_us) if made_us else None


def _replica_report(progress: Mapping[int, Sequence[ShardProgress]]) -> LiveReport:
    """Returns a report that sums the most advanced replica of each shard."""
    replicas = [one for each in progress.values() for one in each]
    furthest = [
        max(each, key=lambda one: sum(one.applied.watermark.positions))
        for each in progress.values()
        if each
    ]
    oldest = [one.oldest_change for one in furthest if one.oldest_change is not None]
    return LiveReport(
        log_id=replicas[0].applied.watermark.log_id if replicas else "",
        problem=next((one.applied.stale for one in replicas if one.applied.stale), ""),
        rows=sum(one.rows for one in furthest),
        hidden_rows=sum(one.hidden_rows for one in furthest),
        behind=sum(max(one.behind for one in each) for each in progress.values() if each),
        oldest_change_time=min(oldest, default=None),
    )


def _behind(progress: Mapping[int, Sequence[ShardProgress]], head: Watermark, shards: int) -> int:
    """Returns the number of changes that the slowest replica of each shard lacks, summed."""
    return sum(
        max(
            _distance(
                one.applied.watermark,
                head,
                partitions_of(number, shards),
            )
            for one in each
        )
        for number, each in progress.items()
        if each
    )


def _distance(position: Watermark, head: Watermark, partitions: Sequence[int]) -> int:
    """Returns the number of changes between two positions; all changes if they are of two logs."""
    if position.log_id != head.log_id:
        position = Watermark(head.log_id)
    return sum(max(0, head.positions[one] - position.positions[one]) for one in partitions)
