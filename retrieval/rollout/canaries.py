"""Follows the canaries that aliases name: loads them, has them tried, and ends what goes badly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from nearline.errors import Conflict, NearlineError
from nearline.retry import Backoff
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef, read_snapshot_ref
from retrieval.rollout.analysis import CanaryAnalysis
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import parse_split
from retrieval.rollout.trial import Trial
from retrieval.search.collection import ServedCollection
from retrieval.snapshots import aliases

_BACKOFF = Backoff(1.0, 60.0)
# A canary that cannot be had for so long is backed out.
_AWAY_S = 300.0
AWAY = "away"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _FollowedCanary:
    """A record that names a canary, and how far it is here. began: Seconds of the clock."""

    record: snapshot_pb2.AliasRecord
    began: float
    problem: str = ""
    loading: asyncio.Task[None] | None = None
    backing_out: bool = False


class CanaryController:
    """Keeps what is tried here at what the aliases name. Belongs to the event loop.

    Each router judges by the requests that it answered itself, and any of them may end the trial
    for all: by a record without the canary, made only where the one that began it is in force.

    Args:
        store: The store.
        collections: What is loaded; gets and loses trials.
        load: Gets a snapshot ready, as `Life.load`.
        forget: Lets go of a snapshot (collection, id) that was to be got ready and is not wanted.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        store: Store,
        collections: ServedCollections,
        load: Callable[[SnapshotRef], Awaitable[ServedCollection]],
        forget: Callable[[str, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._collections = collections
        self._load = load
        self._forget = forget
        self._clock = clock
        self._following: dict[str, _FollowedCanary] = {}

    def see(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        """Notes the record in force; called at every look at the aliases."""
        known = self._following.get(name)
        if known is not None and known.record.epoch == record.epoch:
            self._judge(name, known)
            return
        if known is not None and self._awaits_flip(name, known, record):
            # It became current: whoever it answers goes on being answered by it until all are.
            return
        if known is not None:
            # A canary that gets another share goes on with the one that it had until then.
            self._end(name, known, goes_on=record.canary, named=record.current)
        if record.canary:
            following = _FollowedCanary(record, self._clock())
            self._following[name] = following
            following.loading = asyncio.ensure_future(self._begin(name, following))

    def problem(self, name: str) -> str:
        """Why the canary of a collection is not tried here; empty: it is, or there is none."""
        following = self._following.get(name)
        if following is None or self._trial(name, following) is not None:
            return ""
        return following.problem or "it is being loaded"

    async def close(self) -> None:
        """Ends what is under way."""
        for name, following in list(self._following.items()):
            self._end(name, following, named=following.record.canary)

    async def _begin(self, name: str, following: _FollowedCanary) -> None:
        """Loads a canary, again and again where that fails, and has it tried."""
        record = following.record
        async for _ in _attempts():
            try:
                snapshot = await asyncio.to_thread(
                    read_snapshot_ref, self._store, name, record.canary, record.epoch
                )
                split = parse_split(name, record, snapshot.manifest)
                served = await self._load(snapshot)
            except Exception as error:
                following.problem = (
                    error.message if isinstance(error, NearlineError) else repr(error)
                )
                _log.warning(
                    "canary cannot be tried",
                    extra={
                        "collection": name,
                        "snapshot_id": record.canary,
                        "error": type(error).__name__,
                        "reason": following.problem,
                    },
                    exc_info=None if isinstance(error, NearlineError) else error,
                )
            else:
                break
        held = self._collections.holdings.hold(name, record.canary, served)
        judge = CanaryAnalysis(split.share, split.limits, dealt_by_unit=split.dealt_by_unit)
        before = self._collections.trials.get(name)
        self._collections.trials[name] = Trial(split, held, judge)
        if before is not None:
            before.end()
        following.problem = ""
        metrics.rollout_share.labels(name).set(0.0 if split.shadow else split.share)
        _log.info(
            "canary is tried",
            extra={
                "collection": name,
                "snapshot_id": split.canary,
                "epoch": split.epoch,
                "share": split.share,
                "shadow": split.shadow,
            },
        )

    def _judge(self, name: str, following: _FollowedCanary) -> None:
        trial = self._trial(name, following)
        test = breach = ""
        if trial is not None:
            test, breach = trial.judge.broken, trial.judge.breach
            _export(name, trial)
        elif following.problem:
            waited_s = self._clock() - following.began
            limits = following.record.rollout.limits
            if waited_s > (limits.away_s if limits.HasField("away_s") else _AWAY_S):
                test = AWAY
                breach = f"it could not be had for {waited_s:.0f} s: {following.problem}"
        if not breach or following.backing_out:
            return
        # It gets no request here from now on, whatever becomes of the record.
        ended = self._collections.trials.pop(name, None)
        if ended is not None:
            ended.end()
        following.problem = f"backed out: {breach}"
        following.backing_out = True
        if following.loading is not None:
            following.loading.cancel()
        following.loading = asyncio.ensure_future(self._back_out(name, following, test, breach))

    async def _back_out(
        self, name: str, following: _FollowedCanary, test: str, breach: str
    ) -> None:
        """Makes the record that ends the trial everywhere, again and again where that fails."""
        record = following.record
        _log.error(
            "canary backs out",
            extra={"collection": name, "snapshot_id": record.canary, "reason": breach},
        )
        metrics.rollout_backouts.labels(name, test).inc()
        async for _ in _attempts():
            try:
                await asyncio.to_thread(
                    aliases.end_split,
                    self._store,
                    name,
                    expected_epoch=record.epoch,
                    why=f"backed out by itself: {breach}",
                )
            except Conflict:
                return  # Another router was faster, or somebody decided otherwise.
            except NearlineError as error:
                _log.error(
                    "canary cannot be backed out in the store",
                    extra={"collection": name, "reason": error.message},
                )
            else:
                return

    def _awaits_flip(
        self, name: str, following: _FollowedCanary, record: snapshot_pb2.AliasRecord
    ) -> bool:
        """Returns whether a canary that answers has become current, and is not in force here
        yet."""
        if following.record.canary != record.current or self._trial(name, following) is None:
            return False
        in_force = self._collections.holdings.current(name)
        return in_force is not None and in_force.key.snapshot_id != record.current

    def _trial(self, name: str, following: _FollowedCanary) -> Trial | None:
        """Returns the trial of a record; None: that has not begun here, or has ended."""
        trial = self._collections.trials.get(name)
        if trial is None or trial.split.epoch != following.record.epoch:
            return None
        return trial

    def _end(self, name: str, following: _FollowedCanary, *, goes_on: str = "", named: str) -> None:
        """Ends a trial, unless its canary goes on.

        Args:
            goes_on: Canary of the record that follows. named: What else is not let go of.
        """
        del self._following[name]
        if following.loading is not None:
            following.loading.cancel()
        canary = following.record.canary
        if canary == goes_on:
            return
        trial = self._collections.trials.pop(name, None)
        if trial is not None:
            trial.end()
        metrics.rollout_share.labels(name).set(0.0)
        # What was loaded is held, and goes once it is due; what was being loaded nobody holds.
        if canary != named and self._collections.holdings.get(name, canary) is None:
            self._forget(name, canary)


async def _attempts() -> AsyncIterator[None]:
    """Yields at once, and then again and again, less and less often."""
    for delay_s in _BACKOFF.delays():
        yield
        await asyncio.sleep(delay_s)


def _export(name: str, trial: Trial) -> None:
    for test in trial.judge.tests():
        metrics.rollout_evidence.labels(name, test.name).set(test.evidence / test.limit)
