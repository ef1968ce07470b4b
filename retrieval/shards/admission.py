"""Admission of requests to a shard: the right snapshot, with live changes applied far enough."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence

from nearline.errors import NearlineError, SnapshotGone, Unsupported
from retrieval.live.progress import LiveState
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from retrieval.protocols.watermark import Watermark
from retrieval.shards.batcher import Batcher


class ShardAdmission:
    """Admits requests to the shard of one snapshot; belongs to the event loop.

    Args:
        snapshot_id: Snapshot of the shard; requests for any other snapshot are refused.
        shard: Name of the shard in errors.

    live: Live changes of the shard; None if no change log is followed.
    admitted: Id of the snapshot that requests may name; None once the shard is closed.
    """

    def __init__(self, snapshot_id: str, shard: str) -> None:
        self.live: LiveState | None = None
        self.admitted: str | None = snapshot_id
        self._snapshot_id = snapshot_id
        self._shard = shard

    def submit(
        self,
        batcher: Batcher[ShardOptions, ShardHits],
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None,
    ) -> Future[Sequence[ShardHits]]:
        """Submits queries once live changes reach the watermark in the options.

        See `Shard.search`.
        """
        if snapshot_id != self.admitted:
            return _failed_future(self.gone_error(snapshot_id))
        watermark = options.min_watermark
        if watermark is None:
            return batcher.submit(queries, options, deadline)
        # Without the watermark, queries that waited share batches with those that did not.
        options = options._replace(min_watermark=None)
        try:
            live = self._required_live()
            reached = live.reached(watermark)
        except NearlineError as error:
            return _failed_future(error)
        if reached:
            return batcher.submit(queries, options, deadline)

        async def wait() -> Sequence[ShardHits]:
            await live.wait(watermark, deadline)
            return await batcher.submit(queries, options, deadline)

        return asyncio.ensure_future(wait())

    async def admit(
        self, snapshot_id: str, min_watermark: Watermark | None, deadline: float | None
    ) -> None:
        """Waits until live changes reach the watermark.

        Raises: SnapshotGone: the shard holds another snapshot. Unsupported: no change log is
            followed. As `LiveState.wait`.
        """
        if snapshot_id != self.admitted:
            raise self.gone_error(snapshot_id)
        if min_watermark is not None:
            await self._required_live().wait(min_watermark, deadline)

    def close(self) -> None:
        """Refuses all requests from now on."""
        self.admitted = None

    def gone_error(self, snapshot_id: str) -> SnapshotGone:
        """Returns the error for a request that names a snapshot which the shard does not hold."""
        verb = "has released" if self.admitted is None else "holds"
        return SnapshotGone(
            f"{self._shard} {verb} snapshot {self._snapshot_id}, but the request names "
            f"{snapshot_id}; retry the whole request"
        )

    def _required_live(self) -> LiveState:
        if self.live is None:
            raise Unsupported(
                "no change log is followed here: start the service with --redis URL (nearline up: "
                "without --no-redis), or omit min_watermark",
                field="min_watermark",
            )
        return self.live


def _failed_future(error: Exception) -> Future[Sequence[ShardHits]]:
    future: Future[Sequence[ShardHits]] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
