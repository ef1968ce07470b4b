"""Runs the canaries that aliases name: loads them, starts trials, and backs out bad ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from nearline.errors import Conflict, NearlineError
from nearline.retry import Backoff
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef, read_snapshot_ref
from retrieval.rollout.analysis import CanaryAnalysis
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import parse_split
from retrieval.rollout.trial import Trial
from retrieval.search.collection import ServedCollection
from retrieval.snapshots import aliases

_BACKOFF = Backoff(1.0, 60.0)
# A canary that cannot be loaded for this long is backed out.
_AWAY_S = 300.0
AWAY = "away"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _FollowedCanary:
    """An alias record that names a canary, and its progress here. began: Clock time in seconds."""

    record: snapshot_pb2.AliasRecord
    began: float
    problem: str = ""
    loading: asyncio.Task[None] | None = None
    backing_out: bool = False


class CanaryController:
    """Keeps the trials of this router in step with the aliases. Belongs to the event loop.

    Each router analyses the requests that it answered itself. Any router may end the trial for all
    of them by writing an alias record without the canary, provided that the record that started the
    trial is still current.

    Args:
        store: The store.
        collections: Collections served here; trials are added and removed.
        load: Prepares a snapshot, see `AliasFollower`.
        forget: Releases a snapshot (collection, id) whose preparation is no longer needed.
        try_out: Reads the policies that a rollout of a collection tries.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        collections: ServedCollections,
        load: Callable[[SnapshotRef], Awaitable[ServedCollection]],
        forget: Callable[[str, str], None],
        try_out: Callable[[str, release_pb2.Rollout], None] = lambda name, rollout: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._collections = collections
        self._load = load
        self._forget = forget
        self._try_out = try_out
        self._clock = clock
        self._following: dict[str, _FollowedCanary] = {}

    def update(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        """Processes the current alias record; called at every poll of the aliases."""
        known = self._following.get(name)
        if known is not None and known.record.epoch == record.epoch:
            self._check(name, known)
            return
        if known is not None and self._awaits_promotion(name, known, record):
            # The canary was promoted: it keeps its share of the requests until it answers all
            # requests.
            return
        if known is not None:
            # A canary whose share changes keeps the old share until the new trial starts.
            same = known.record.rollout.policies == record.rollout.policies
            continues_as = record.canary if same else ""
            self._end(name, known, continues_as=continues_as, keep=record.current)
        if record.canary:
            following = _FollowedCanary(record, self._clock())
            self._following[name] = following
            following.loading = asyncio.ensure_future(self._begin(name, following))

    def problem(self, name: str) -> str:
        """Returns why the canary of a collection has no trial here; empty if it has one."""
        following = self._following.get(name)
        if following is None or self._trial(name, following) is not None:
            return ""
        return following.problem or "it is being loaded"

    async def close(self) -> None:
        """Ends all trials."""
        for name, following in list(self._following.items()):
            self._end(name, following, keep=following.record.canary)

    async def _begin(self, name: str, following: _FollowedCanary) -> None:
        """Loads a canary, retrying until it succeeds, and starts its trial."""
        record = following.record
        # From 0 on: Prometheus sees no increase of a counter that begins at 1.
        metrics.rollout_backouts.labels(name, AWAY)
        async for _ in _attempts():
            try:
                snapshot = await asyncio.to_thread(
                    read_snapshot_ref, self._store, name, record.canary, record.epoch
                )
                split = parse_split(name, record, snapshot.manifest)
                if split.variant:
                    await asyncio.to_thread(self._try_out, name, record.rollout)
                served = await self._load(snapshot)
            except Exception as error:
                following.problem = (
                    error.message if isinstance(error, NearlineError) else repr(error)
                )
                _log.warning(
                    "canary cannot be loaded",
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
        held = self._collections.loaded.add(name, record.canary, served)
        analysis = CanaryAnalysis(split.share, split.limits, dealt_by_unit=split.dealt_by_unit)
        for test in analysis.tests():
            metrics.rollout_backouts.labels(name, test.name)
        before = self._collections.trials.get(name)
        self._collections.trials[name] = Trial(split, held, analysis)
        if before is not None:
            before.end()
        following.problem = ""
        metrics.rollout_share.labels(name).set(0.0 if split.shadow else split.share)
        _log.info(
            "canary trial started",
            extra={
                "collection": name,
                "snapshot_id": split.canary,
                "epoch": split.epoch,
                "share": split.share,
                "shadow": split.shadow,
            },
        )

    def _check(self, name: str, following: _FollowedCanary) -> None:
        trial = self._trial(name, following)
        test = breach = ""
        if trial is not None:
            test, breach = trial.analysis.breached_test, trial.analysis.breach
            _export_evidence(name, trial)
        elif following.problem:
            waited_s = self._clock() - following.began
            limits = following.record.rollout.limits
            if waited_s > (limits.away_s if limits.HasField("away_s") else _AWAY_S):
                test = AWAY
                breach = f"it could not be loaded for {waited_s:.0f} s: {following.problem}"
        if not breach or following.backing_out:
            return
        # From now on the canary gets no requests here, even if writing the record fails.
        ended = self._collections.trials.pop(name, None)
        if ended is not None:
            ended.end()
            metrics.rollout_share.labels(name).set(0.0)
        following.problem = f"backed out: {breach}"
        following.backing_out = True
        if following.loading is not None:
            following.loading.cancel()
        following.loading = asyncio.ensure_future(self._back_out(name, following, test, breach))

    async def _back_out(
        self, name: str, following: _FollowedCanary, test: str, breach: str
    ) -> None:
        """Writes the record that ends the trial everywhere, retrying until it succeeds."""
        record = following.record
        _log.error(
            "canary is backed out",
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
                    why=f"backed out automatically: {breach}",
                )
            except Conflict:
                return  # A different router was faster, or an operator changed the aliases.
            except NearlineError as error:
                _log.error(
                    "canary cannot be backed out in the store",
                    extra={"collection": name, "reason": error.message},
                )
            else:
                return

    def _awaits_promotion(
        self, name: str, following: _FollowedCanary, record: snapshot_pb2.AliasRecord
    ) -> bool:
        """Returns whether a canary on trial was promoted but does not answer all requests yet."""
        if following.record.canary != record.current or self._trial(name, following) is None:
            return False
        in_force = self._collections.loaded.current(name)
        return in_force is not None and in_force.key.snapshot_id != record.current

    def _trial(self, name: str, following: _FollowedCanary) -> Trial | None:
        """Returns the trial of a record; None if it has not started here or has ended."""
        trial = self._collections.trials.get(name)
        if trial is None or trial.split.epoch != following.record.epoch:
            return None
        return trial

    def _end(
        self, name: str, following: _FollowedCanary, *, continues_as: str = "", keep: str
    ) -> None:
        """Ends a trial, unless its canary continues.

        Args:
            continues_as: Canary of the next record.
            keep: Another snapshot that must not be released.
        """
        del self._following[name]
        if following.loading is not None:
            following.loading.cancel()
        canary = following.record.canary
        if canary == continues_as:
            return
        trial = self._collections.trials.pop(name, None)
        if trial is not None:
            trial.end()
        metrics.rollout_share.labels(name).set(0.0)
        # A loaded canary is released once it is drained; a canary that was still loading is
        # released here.
        if canary != keep and self._collections.loaded.get(name, canary) is None:
            self._forget(name, canary)


async def _attempts() -> AsyncIterator[None]:
    """Yields immediately, and then again after ever longer delays, without end."""
    for delay_s in _BACKOFF.delays():
        yield
        await asyncio.sleep(delay_s)


def _export_evidence(name: str, trial: Trial) -> None:
    for test in trial.analysis.tests():
        metrics.rollout_evidence.labels(name, test.name).set(test.evidence / test.limit)
