"""What operators are told of live changes, and which snapshots these still let be promoted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from nearline.errors import NearlineError
from nearline.snapshot import PARTITIONS, Store, partitions_of
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.registry import ChangeLogs
from retrieval.live.progress import ShardProgress
from retrieval.protocols.watermark import Watermark
from retrieval.search.collection import ServedCollection
from retrieval.shards.provider import ShardProvider
from retrieval.snapshots.promotable import make_promotion_check

if TYPE_CHECKING:
    from retrieval.changelog.archive import Archive

# An operator who looks is told what is known by then.
_PATIENCE_S = 1.0


class LiveReport(NamedTuple):
    """Live changes of a collection, as the router sees them; see LiveStatus in admin.proto.

    oldest_change: Aware; None: the snapshot has all changes.
    archive_time: Aware, when something was last archived; None: never.
    """

    log_id: str = ""
    problem: str = ""
    rows: int = 0
    hidden_rows: int = 0
    behind: int = 0
    not_archived: int = 0
    oldest_change: datetime | None = None
    archive_time: datetime | None = None


class LiveReporter:
    """Asks the log and the replicas.

    Args:
        store: The store.
        logs: The change logs; None: the router was not told of any.
        hosting: What holds the shards.
    """

    def __init__(self, store: Store, logs: ChangeLogs | None, hosting: ShardProvider) -> None:
        self._store = store
        self._logs = logs
        self._hosting = hosting
        self._archives: dict[tuple[str, str], Archive] = {}

    async def of(self, served: ServedCollection) -> LiveReport | None:
        """Returns the report of a collection; None: there is no change log for it."""
        progress = self._hosting.progress(served.name, served.snapshot_id)
        replicas = [one for each in progress.values() for one in each]
        if self._logs is None and not replicas:
            return None
        report = _of_replicas(progress)
        if self._logs is None:
            return report
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = (await self._logs.log(served.name).state()).head
                archived, made = await asyncio.to_thread(self._archived, served.name, head.log_id)
        except (NearlineError, TimeoutError) as error:
            why = error.message if isinstance(error, NearlineError) else "it answers too slowly"
            return report._replace(problem=report.problem or f"the change log: {why}")
        return report._replace(
            log_id=head.log_id,
            behind=_behind(progress, head, len(served.shards)),
            not_archived=_distance(archived, head, range(PARTITIONS)),
            archive_time=made,
        )

    async def promotable(self, collection: str) -> Callable[[snapshot_pb2.Manifest], None]:
        """Returns what refuses a snapshot that cannot be followed; see `promoting.promotable`."""
        return await make_promotion_check(self._store, self._logs, collection)

    def _archived(self, collection: str, log_id: str) -> tuple[Watermark, datetime | None]:
        from retrieval.changelog.archive import Archive

        key = (collection, log_id)
        if key not in self._archives:
            self._archives[key] = Archive(self._store, collection, log_id)
        archive = self._archives[key]
        made_us = archive.made_us()
        return archive.end(), from_us(made_us) if made_us else None


def _of_replicas(progress: Mapping[int, Sequence[ShardProgress]]) -> LiveReport:
    """Sums the furthest replica of each shard."""
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
        oldest_change=min(oldest, default=None),
    )


def _behind(progress: Mapping[int, Sequence[ShardProgress]], head: Watermark, shards: int) -> int:
    """Counts, shard by shard, what the replica furthest behind lacks."""
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


def _distance(at: Watermark, head: Watermark, partitions: Sequence[int]) -> int:
    """Counts the changes between two positions; all of them where they are of two logs."""
    if at.log_id != head.log_id:
        at = Watermark(head.log_id)
    return sum(max(0, head.positions[one] - at.positions[one]) for one in partitions)
