"""What a shard looks at before it answers: its snapshot, and live changes as far as wanted."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence

from nearline.errors import NearlineError, SnapshotGone, Unsupported
from retrieval.live.view import LiveState
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from retrieval.protocols.watermark import Watermark
from retrieval.shards.batcher import Batcher


class ShardAdmission:
    """Lets requests to the shard of one snapshot in; belongs to the event loop.

    Args:
        snapshot_id: Snapshot of the shard; requests for another one are refused.
        shard: What the shard is called, for errors.

    live: Live changes; None: none are followed. closed: Nobody is let in any more.
    """

    def __init__(self, snapshot_id: str, shard: str) -> None:
        self.live: LiveState | None = None
        self.closed = False
        self._snapshot_id = snapshot_id
        self._shard = shard

    def opens(self, snapshot_id: str) -> bool:
        """Returns whether this is that snapshot, and still held."""
        return not self.closed and snapshot_id == self._snapshot_id

    def ask(
        self,
        coalescer: Batcher[ShardOptions, ShardHits],
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None,
    ) -> Future[Sequence[ShardHits]]:
        """Hands queries on, once live changes are as far as the options ask; see `Shard.search`."""
        if not self.opens(snapshot_id):
            return _failed_future(self.gone(snapshot_id))
        least = options.min_watermark
        if least is None:
            return coalescer.ask(queries, options, deadline)
        # Without it, so that those who waited share batches with those who did not.
        options = options._replace(min_watermark=None)
        try:
            live = self._followed()
            reached = live.reached(least)
        except NearlineError as error:
            return _failed_future(error)
        if reached:
            return coalescer.ask(queries, options, deadline)

        async def wait() -> Sequence[ShardHits]:
            await live.wait(least, deadline)
            return await coalescer.ask(queries, options, deadline)

        return asyncio.ensure_future(wait())

    async def reach(
        self, snapshot_id: str, least: Watermark | None, deadline: float | None
    ) -> None:
        """Waits until the right snapshot is as far as asked.

        Raises: SnapshotGone: it is another one. As `LiveState.wait`; Unsupported: nothing is
            followed.
        """
        if not self.opens(snapshot_id):
            raise self.gone(snapshot_id)
        if least is not None:
            await self._followed().wait(least, deadline)

    def gone(self, snapshot_id: str) -> SnapshotGone:
        """Returns the error of a snapshot that is not held."""
        has = "has let go of" if self.closed else "holds"
        return SnapshotGone(
            f"{self._shard} {has} snapshot {self._snapshot_id}, {snapshot_id} is asked for; "
            "retry the whole request"
        )

    def _followed(self) -> LiveState:
        if self.live is None:
            raise Unsupported(
                "live changes are not followed here: start the service with --redis URL, or leave "
                "min_watermark out",
                field="min_watermark",
            )
        return self.live


def _failed_future(error: Exception) -> Future[Sequence[ShardHits]]:
    future: Future[Sequence[ShardHits]] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
