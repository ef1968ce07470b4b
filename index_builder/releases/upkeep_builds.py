"""Builds of upkeep.

Compactions and first trainings go live after the gate; rebuilds are tried or proposed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from index_builder.execution.progress import TextProgress
from index_builder.options.build_options import BuildOptions, Gate, IndexOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline import compaction, upkeep_metrics
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.pipeline.publisher import promote
from index_builder.pipeline.training_data import current_card, with_recorded_users
from index_builder.pipeline.work_folder import OUTDATED, remove_stale_work
from index_builder.releases.begun_builds import note_begun, remove_begun, settle_begun
from index_builder.releases.build_gate import check_passed, gate_of_build
from index_builder.releases.drift import LIMIT
from index_builder.releases.failed_builds import REBUILD_REFUSED_S, FailedBuilds
from index_builder.releases.release_loop import ReleaseLoop
from index_builder.releases.training_schedule import TrainingSchedule
from nearline.contract import Embedder
from nearline.counts import counted
from nearline.durations import parse_duration
from nearline.errors import Conflict, GateFailed, NearlineError, NotReady, Overloaded, StoreError
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2, release_pb2, snapshot_pb2
from retrieval.changelog.redis_log import RedisLog
from retrieval.embedders.endpoints import Embedders
from retrieval.redis_client.connection import Redis
from retrieval.redis_client.lease import RedisLease
from retrieval.snapshots.training_statuses import TrainingStatuses
from retrieval.users.imports import ImportedInteractions

_log = logging.getLogger("index_builder.upkeep")
# The age of models costs reading a manifest, and perhaps all interactions: not in every round.
_AGE_CHECK_S = 3_600.0
# An upkeep that is killed in the middle of a build blocks the next one for this long.
_LEASE_S = 10.0
# Of the progress of a build, in `nearline status`.
_REPORT_S = 2.0
# Characters of an error in `nearline status`; the log has it whole.
_MAX_PROBLEM = 1_000


class _Built(NamedTuple):
    """A snapshot that passed the gate, its verdict, and the alias record when it was begun."""

    manifest: snapshot_pb2.Manifest
    verdict: release_pb2.GateVerdict
    judged: snapshot_pb2.AliasRecord


class UpkeepBuilds:
    """Builds the snapshots that are due, one at a time.

    Args:
        config: Settings.
        store: The store.
        embedders: Embed those changes that have no vector. Optional.
        proposals: Receives rebuilds.
        redis: Leases builds, so that no other upkeep builds the same collection. Optional.
        statuses: Receive the status of trainings. Optional.
    Raises: InvalidRequest: A duration cannot be read.
    """

    def __init__(
        self,
        config: UpkeepSettings,
        store: Store,
        embedders: Embedders | None,
        proposals: ReleaseLoop,
        redis: Redis | None = None,
        statuses: TrainingStatuses | None = None,
    ) -> None:
        self._settings = config
        self._store = store
        self._embedders = embedders
        self._proposals = proposals
        self._redis = redis
        self._models_age_s = parse_duration(config.models_age, "models_age")
        self._failed = {kind: FailedBuilds() for kind in upkeep_metrics.KINDS}
        self._failed["rebuild"] = FailedBuilds(REBUILD_REFUSED_S)
        self._age_checked_s: dict[str, float] = {}
        # Newest interaction when models were last found old; it may be with an unknown item.
        self._trained_us: dict[str, int] = {}
        self._schedule = TrainingSchedule(config.first_training)
        self._statuses = statuses
        self._status = defaultdict[str, admin_pb2.TrainingStatus](admin_pb2.TrainingStatus)

    def forget(self, name: str) -> None:
        """Forgets a collection that was dropped."""
        for failed in self._failed.values():
            failed.forget(name)
        self._age_checked_s.pop(name, None)
        self._trained_us.pop(name, None)
        self._schedule.forget(name)
        self._status.pop(name, None)

    async def build_if_due(
        self,
        name: str,
        log: RedisLog,
        check: compaction.CompactionCheck,
        *,
        pending: bool,
        drift: float,
    ) -> bool:
        """Compacts or rebuilds a collection if that is due; returns whether it built a snapshot.

        Args:
            log: Its change log.
            check: Whether compaction is due.
            pending: Whether a rebuild has to wait for a proposal.
            drift: Drift of the searches that the current snapshot answered.
        Raises: Conflict: another process compacts. GateFailed: the release gate refuses the new
            snapshot. As `compaction.compact`. After a failure, the next build waits, see
            `FailedBuilds`.
        """
        card, entries = await self._report(name, log)
        if check.reason and not self._failed["compaction"].pauses(name, check.epoch):
            async with self._leased(name):
                await self._compact(name, log, check)
            return True
        if pending:
            return False
        if (await asyncio.to_thread(self._store.alias_in_force, name)).canary:
            return False  # A new snapshot would end the trial.
        # It compacts, too, so it does not wait for a compaction that was refused.
        if card is None and await self._train_first(name, log, check, entries):
            return True
        # A compaction would outdate the proposal, so it goes first.
        if check.reason or self._settings.releases == "off":
            return False
        return await self._rebuild(name, log, check.epoch, card, entries, drift)

    async def _train_first(
        self, name: str, log: RedisLog, check: compaction.CompactionCheck, entries: int
    ) -> bool:
        """Trains the first models of a collection once enough interactions were recorded.

        Lists without models have nothing to lose, so the snapshot is neither proposed nor tried,
        but serves once it passes the gate.

        Returns: Whether it trained.
        """
        if self._failed["training"].pauses(name, check.epoch):
            return False
        if not check.documents + check.changes:
            if self._status[name].recorded >= self._schedule.needed(None) > 0:
                await self._put_problem(name, "waits for items: the collection has none")
            return False
        training = await self._enough(name, log, None, entries)
        if training is None:
            return False
        reason = f"first models, trained on {counted(training.recorded, 'recorded interaction')}"
        async with self._leased(name):
            await self._compact(name, log, replace(check, reason=reason), training)
        return True

    async def _enough(
        self, name: str, log: RedisLog, card: snapshot_pb2.BehaviourCard | None, entries: int
    ) -> TrainingOptions | None:
        """Returns options to train if enough interactions were recorded, else None.

        Args:
            card: What the current models were trained on; None if there are none.
            entries: As `_report` returns them.
        """
        needed = self._schedule.needed(card)
        if not self._schedule.should_read(name, entries, needed):
            return None
        if self._schedule.is_filling(name, entries):
            return None
        training = await self._training(name, log)
        self._schedule.note_reading(name, entries, training.recorded)
        return training if training.recorded >= needed else None

    async def _report(
        self, name: str, log: RedisLog
    ) -> tuple[snapshot_pb2.BehaviourCard | None, int]:
        """Puts the status of the models into Redis.

        Returns: Their card, None if there are none; and the number of recorded and imported
            interactions, with those of sessions; 0 if they cannot be counted.
        """
        card = await asyncio.to_thread(current_card, self._store, name)
        status = self._status[name]
        entries = 0
        try:
            imported = await asyncio.to_thread(ImportedInteractions(self._store, name).count_rows)
            entries = imported + await log.user_states().count_logged(name)
            status.recorded = self._schedule.recorded(name, entries)
        except (NotReady, StoreError) as error:
            # Compactions need no users.
            extra = {"collection": name, "reason": error.message}
            _log.warning("interactions not counted", extra=extra)
        status.needed = self._schedule.needed(card)
        status.trained = 0 if card is None else card.interactions
        if card is not None:
            status.newest_time.CopyFrom(card.newest_time)
        await self._put_status(name)
        return card, entries

    async def _put_problem(self, name: str, text: str) -> None:
        """Puts into Redis why the newest training does not serve."""
        self._status[name].problem = " ".join(text.split())[:_MAX_PROBLEM]
        await self._put_status(name)

    async def _put_status(self, name: str) -> None:
        if self._statuses is not None:
            with contextlib.suppress(NotReady):  # The next round puts it again.
                await self._statuses.put(name, self._status[name])

    @contextlib.asynccontextmanager
    async def _reported(
        self, name: str, kind: str, training: TrainingOptions | None
    ) -> AsyncIterator[TextProgress]:
        """Yields the progress of a build; puts it into Redis, and why a training failed."""
        status = self._status[name]
        progress = TextProgress(lambda line: _log.info("progress", extra={"line": line}))

        async def report() -> None:
            while True:
                status.progress = f"{kind}: {progress.line()}".removesuffix(": ")
                await self._put_status(name)
                await asyncio.sleep(_REPORT_S)

        task = asyncio.create_task(report())
        try:
            yield progress
            if training is not None:
                status.problem = ""
        except Conflict:
            raise
        except Exception as error:
            if training is not None:
                text = error.message if isinstance(error, NearlineError) else str(error)
                await self._put_problem(name, f"{kind}: {text}")
            raise
        finally:
            task.cancel()
            status.progress = ""
            await self._put_status(name)

    async def _compact(
        self,
        name: str,
        log: RedisLog,
        check: compaction.CompactionCheck,
        training: TrainingOptions | None = None,
    ) -> None:
        """Builds a snapshot with the changes so far, and serves it if the gate lets it pass."""
        kind = "training" if training else "compaction"
        _log.info("building", extra={"collection": name, "kind": kind, "reason": check.reason})
        judge = _gate(self._settings.force_promote)
        built = await self._build(name, log, kind, check.epoch, judge, training)
        await self._promote(name, built, f"{kind}: {check.reason}")

    async def _promote(self, name: str, built: _Built, why: str) -> None:
        manifest = built.manifest
        await asyncio.to_thread(
            promote, self._store, manifest, why, built.judged.epoch, built.verdict
        )
        _log.info("built", extra={"collection": name, "snapshot_id": manifest.snapshot_id})
        await self._settle(name, manifest)

    async def _rebuild(
        self,
        name: str,
        log: RedisLog,
        epoch: int,
        card: snapshot_pb2.BehaviourCard | None,
        entries: int,
        drift: float,
    ) -> bool:
        """Builds a snapshot after drift, or with models trained again.

        It is proposed. With `releases` auto and no router, it is promoted at once.

        Args:
            card, entries: As `_report` returns them.
        Returns: Whether there was a reason to.
        """
        if self._failed["rebuild"].pauses(name, epoch):
            return False
        reason, training = await self._rebuild_reason(name, log, card, entries, drift)
        if not reason:
            return False
        _log.info("rebuilding", extra={"collection": name, "reason": reason})
        async with self._leased(name):
            built = await self._build(name, log, "rebuild", epoch, _gate(""), training)
            if self._settings.releases == "auto" and not self._settings.retrieval:
                await self._promote(name, built, f"rebuild: {reason}")
                return True
            snapshot_id = built.manifest.snapshot_id
            await self._proposals.propose(name, snapshot_id, reason, built.judged)
            await self._settle(name, built.manifest)
        return True

    @contextlib.asynccontextmanager
    async def _leased(self, name: str) -> AsyncIterator[None]:
        """Holds the lease of a build; it saves work, and the epoch protects the promotion.

        Raises: Conflict: another upkeep builds the collection. NotReady: Redis does not answer.
        """
        if self._redis is None:
            yield
            return
        lease = RedisLease(self._redis, f"nl:{{{name}}}:upkeep", "builds of upkeep", _LEASE_S)
        if not await lease.acquire():
            raise Conflict(f"another upkeep builds {name!r}; run one upkeep")
        try:
            yield
        finally:
            await lease.release()

    async def _settle(self, name: str, manifest: snapshot_pb2.Manifest) -> None:
        """Removes what earlier builds left behind, once one is served or proposed."""
        await asyncio.to_thread(settle_begun, self._store, name, manifest.snapshot_id)
        await asyncio.to_thread(remove_begun, self._store, name)

    async def _build(
        self,
        name: str,
        log: RedisLog,
        kind: str,
        epoch: int,
        judge: Gate,
        training: TrainingOptions | None = None,
    ) -> _Built:
        """Builds a snapshot of the current one and the changes since, and asks the gate.

        Args:
            kind: A kind of builds in `upkeep_metrics`.
            epoch: Epoch of the current snapshot.
            judge: The gate.
            training: Optional; how models are trained again.
        Raises: GateFailed: the gate refuses it. Conflict, and errors of `compaction.compact`.
        """
        judged = await asyncio.to_thread(self._store.alias_in_force, name)
        failed = self._failed[kind]
        try:
            await asyncio.to_thread(remove_begun, self._store, name, keep=1)
            options = replace(await self._options(name, log), training=training)
            embedder = await self._embedder_of(name)
            changes = log if await asyncio.to_thread(self._store.log_in_force, name) else None
            async with self._reported(name, kind, training) as progress:
                result = await compaction.compact(options, changes, embedder, progress)
                manifest = await asyncio.to_thread(self._store.manifest, name, result.snapshot_id)
                progress.start("release gate", None, "")
                verdict = await judge(self._store, manifest, embedder)
                await asyncio.to_thread(check_passed, verdict, result.snapshot_id, self._store)
        except OUTDATED:
            raise
        except Exception as error:
            refused = isinstance(error, GateFailed)
            failures = failed.add(name, epoch, refused=refused)
            outcome = "refused" if refused else "failed"
            upkeep_metrics.count_build(name, kind, outcome, failures)
            # The newest stays: it can be examined, or promoted with a reason.
            with contextlib.suppress(NearlineError):
                await asyncio.to_thread(remove_begun, self._store, name, keep=1)
            raise
        failed.forget(name)
        upkeep_metrics.count_build(name, kind, "passed")
        await asyncio.to_thread(remove_stale_work, options)
        return _Built(manifest, verdict, judged)

    async def _rebuild_reason(
        self,
        name: str,
        log: RedisLog,
        card: snapshot_pb2.BehaviourCard | None,
        entries: int,
        drift: float,
    ) -> tuple[str, TrainingOptions | None]:
        """Returns the reason for a rebuild, empty if none is due, and its training."""
        if drift > LIMIT:
            training = None if card is None else await self._training(name, log)
            return f"drift of scores: {drift:.2f} is above {LIMIT:g}", training
        if card is None:
            return "", None
        if (training := await self._enough(name, log, card, entries)) is not None:
            reason = (
                f"{counted(training.recorded, 'interaction')} were recorded, "
                f"{card.recorded:,} when the models were trained"
            )
            return reason, training
        now_s = time.monotonic()
        if now_s - self._age_checked_s.get(name, -math.inf) < _AGE_CHECK_S:
            return "", None
        self._age_checked_s[name] = now_s
        age_s = time.time() - card.newest_time.ToNanoseconds() / 1e9
        if not 0 < self._models_age_s < age_s:
            return "", None
        training = await self._training(name, log)
        # Imported interactions stay, so that some are always there.
        newest_us = training.interactions.time_us.max(initial=0)
        if newest_us <= max(card.newest_time.ToMicroseconds(), self._trained_us.get(name, 0)):
            return "", None
        self._trained_us[name] = int(newest_us)
        return f"models know nothing newer than {age_s / 86_400:.1f} days", training

    async def _options(self, name: str, log: RedisLog) -> BuildOptions:
        options = BuildOptions(
            store=self._settings.store,
            collection=name,
            device=self._settings.device,
            golden_queries=self._settings.golden_queries,
            index=IndexOptions(threads=self._settings.threads),
            promote=False,
            work_dir=Path(self._settings.work_dir) if self._settings.work_dir else None,
            on_named=partial(note_begun, self._store, name),
        )
        options = await asyncio.to_thread(compaction.compaction_options, options)
        return replace(options, deleted_users=partial(log.user_states().deleted, name))

    async def _training(self, name: str, log: RedisLog) -> TrainingOptions:
        """Returns options to train on recorded interactions, with the choices made before."""
        options = BuildOptions(store=self._settings.store, collection=name)
        try:
            options = await with_recorded_users(options, log.user_states(), learn=True)
        except NearlineError as error:
            await self._put_problem(name, error.message)
            raise
        assert options.training is not None, "it learns"
        return options.training

    async def _embedder_of(self, name: str) -> Embedder | None:
        """Returns the embedder of a collection's model; None if it has none."""
        manifest = await asyncio.to_thread(compaction.read_current_manifest, self._store, name)
        fingerprint = manifest.embedder.fingerprint
        if self._embedders is None or not fingerprint:
            return None
        return self._embedders.group(fingerprint)


def _gate(force_because: str) -> Gate:
    """Returns the gate of a compaction; a snapshot that it cannot load has not passed."""
    judge = gate_of_build(force_because)

    async def check(
        store: Store, manifest: snapshot_pb2.Manifest, embedder: Embedder | None
    ) -> release_pb2.GateVerdict:
        try:
            return await judge(store, manifest, embedder)
        except Overloaded as error:
            raise GateFailed(
                f"snapshot {manifest.snapshot_id} is built, but the release gate cannot judge it "
                f"here: {error.message}; judge and promote it on a larger machine: nearline "
                f"snapshots promote {manifest.snapshot_id}"
            ) from error

    return check
