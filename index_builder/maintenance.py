"""Maintains change logs: `python -m index_builder.maintenance --store DIR --redis URL …`.

Every `every_s` seconds it archives the change log of each collection, compacts it if enough changes
have accumulated, and trims it. If requests drifted or models are old, it builds a snapshot and
proposes it. Several instances with one folder as their store skip the work of the others; over a
bucket, run one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from index_builder.execution.progress import TextProgress
from index_builder.interactions.merge import NO_INTERACTIONS
from index_builder.interactions.recorded_interactions import add_recorded
from index_builder.options.build_options import BuildOptions, Gate, IndexOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline import compaction, upkeep_metrics
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.pipeline.pruning import SnapshotLimits, prune_snapshots
from index_builder.pipeline.publisher import promote
from index_builder.pipeline.training_data import inherit_options
from index_builder.releases.build_gate import check_passed, gate_of_build
from index_builder.releases.failed_builds import FailedBuilds
from index_builder.releases.release_loop import ReleaseLoop
from nearline import serving, settings, telemetry
from nearline.clients import AdminClient, EmbeddingClient
from nearline.contract import Embedder
from nearline.durations import parse_duration
from nearline.errors import (
    Conflict,
    GateFailed,
    NearlineError,
    NotFound,
    Overloaded,
    SettingsError,
)
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.changelog.redis_log import RedisLog
from retrieval.changelog.registry import REDIS_TIMEOUT_S, ChangeLogs
from retrieval.changelog.retention import trim_log
from retrieval.embedders.endpoints import Embedders
from retrieval.monitoring.rebuild_requests import RebuildRequests
from retrieval.redis_client.connection import connect
from retrieval.shards.topology import parse_addresses
from retrieval.snapshots import aliases

_log = logging.getLogger("index_builder.upkeep")
# The age of models costs reading a manifest, and perhaps all interactions: not in every round.
_AGE_CHECK_S = 3_600.0
# Pruning costs reading the manifests of all snapshots, and all alias records.
_PRUNE_S = 600.0


class _Built(NamedTuple):
    """A snapshot that passed the gate, its verdict, and the alias record when it was begun."""

    manifest: snapshot_pb2.Manifest
    verdict: release_pb2.GateVerdict
    judged: snapshot_pb2.AliasRecord


class Maintenance:
    """Maintains the change logs of a store.

    Args:
        config: Settings.
        store: The store.
        logs: The change logs of the store.
        embedders: Embed those changes that have no vector. Optional.
        rebuilds: Rebuilds that routers request after a drift. Optional.
        admin: A router that tries snapshots; required if `releases` is auto.
    Raises: SettingsError: There is none. InvalidRequest: A duration cannot be read.
    """

    def __init__(
        self,
        config: UpkeepSettings,
        store: Store,
        logs: ChangeLogs,
        embedders: Embedders | None,
        rebuilds: RebuildRequests | None = None,
        admin: AdminClient | None = None,
    ) -> None:
        self._settings = config
        self._store = store
        self._logs = logs
        self._embedders = embedders
        self._rebuilds = rebuilds
        self._age_s = parse_duration(config.age, "age")
        self._models_age_s = parse_duration(config.models_age, "models_age")
        self._loop = ReleaseLoop(config, store, admin)
        self._failed_compactions = FailedBuilds(store)
        self._failed_rebuilds = FailedBuilds(store)
        self._keep_age = timedelta(seconds=parse_duration(config.keep_age, "keep_age"))
        self._age_checked_s: dict[str, float] = {}
        self._pruned_s: dict[str, float] = {}
        self._known: set[str] = set()

    async def run(self) -> None:
        """Runs forever; work that fails is retried in the next round."""
        while True:
            try:
                names = self._settings.collection_names()
                names = names or await asyncio.to_thread(self._store.collections)
                for name in self._known.difference(names):
                    upkeep_metrics.forget(name)
                self._known = set(names)
                for name in names:
                    await self._maintain(name)
                upkeep_metrics.round_time.set_to_current_time()
            except NearlineError as error:
                _log.warning("store not maintained", extra={"reason": error.message})
            except Exception:
                # Upkeep that ends would not be noticed: it answers health checks all the same.
                _log.exception("store not maintained")
            await asyncio.sleep(self._settings.every_s)

    async def _maintain(self, name: str) -> None:
        try:
            await self.run_once(name)
            upkeep_metrics.success_time.labels(name).set_to_current_time()
        except Conflict as error:
            _log.info("skipped", extra={"collection": name, "reason": error.message})
        except NearlineError as error:
            _log.warning("not maintained", extra={"collection": name, "reason": error.message})
        except Exception:
            # Any error must leave the other collections maintained.
            _log.exception("not maintained", extra={"collection": name})

    async def run_once(self, name: str) -> bool:
        """Archives, compacts or rebuilds if due, and trims; returns whether it built a snapshot.

        A compaction goes live once it passes the release gate. A rebuild, after drift or because
        models are old, is proposed; see `ReleaseLoop`. A failed rebuild after drift is not retried
        until it is requested again.

        Raises: NotReady: the log is unavailable. Conflict: another process compacts. GateFailed:
            the release gate refuses the new snapshot. As `compact`. After a failure, the next
            build waits, see `FailedBuilds`.
        """
        if await asyncio.to_thread(self._store.log_in_force, name) is None:
            return False
        log = self._logs.log(name)
        try:
            check = await compaction.check_compaction(
                self._store,
                log,
                self._settings.share,
                self._age_s,
                self._settings.log_bytes,
            )
            upkeep_metrics.show(name, check.changes, check.log.changes, check.log.bytes)
        except NotFound:
            return False  # No snapshot is published yet, so there is nothing to compact.
        pending = await self._advance(name)
        if self._settings.compact:
            if check.reason and not await self._failed_compactions.pauses(name):
                await self._compact(name, log, check)
                return True
            # A compaction would outdate the proposal, so it goes first.
            if not (pending or check.reason) and await self._rebuild(name, log):
                return True
        if time.monotonic() - self._pruned_s.get(name, -math.inf) >= _PRUNE_S:
            await self._prune(name, check.log.bytes)
        await trim_log(self._store, log)
        return False

    async def _prune(self, name: str, log_bytes: int) -> None:
        """Removes snapshots that nobody needs; if the log is too large, all that are not in use."""
        config = self._settings
        limits = SnapshotLimits(config.keep, config.keep_builds, self._keep_age)
        if log_bytes > config.log_bytes:
            limits = limits._replace(compacted=0, builds=0)
        self._pruned_s[name] = time.monotonic()
        removed = await asyncio.to_thread(prune_snapshots, self._store, name, limits)
        if removed:
            _log.info("pruned", extra={"collection": name, "snapshots": removed})

    async def _advance(self, name: str) -> bool:
        """Takes the next step of a proposal; returns whether one is pending."""
        try:
            return await self._loop.advance(name)
        except NearlineError as error:
            _log.warning(
                "proposal not advanced", extra={"collection": name, "reason": error.message}
            )
            return True

    async def _compact(self, name: str, log: RedisLog, check: compaction.CompactionCheck) -> None:
        """Builds a snapshot with the changes so far, and serves it if the gate lets it pass."""
        _log.info("compacting", extra={"collection": name, "reason": check.reason})
        judge = _gate(self._settings.force_promote)
        built = await self._build(name, log, self._failed_compactions, judge)
        manifest = built.manifest
        why = f"compaction: {check.reason}"
        await asyncio.to_thread(
            promote, self._store, manifest, why, built.judged.epoch, built.verdict
        )
        _log.info("compacted", extra={"collection": name, "snapshot_id": manifest.snapshot_id})
        await self._prune(name, check.log.bytes)

    async def _rebuild(self, name: str, log: RedisLog) -> bool:
        """Builds a snapshot after drift, or with models trained again, and proposes it.

        Returns: Whether there was a reason to.
        """
        if self._settings.releases == "off" or await self._failed_rebuilds.pauses(name):
            return False
        if (await asyncio.to_thread(self._store.alias_in_force, name)).canary:
            return False  # A new snapshot would end the trial.
        reason, training = await self._rebuild_reason(name, log)
        if not reason:
            return False
        _log.info("rebuilding", extra={"collection": name, "reason": reason})
        try:
            built = await self._build(name, log, self._failed_rebuilds, _gate(""), training)
        except GateFailed:
            upkeep_metrics.proposals.labels(name, "refused").inc()
            raise
        await self._loop.propose(name, built.manifest.snapshot_id, reason, built.judged)
        return True

    async def _build(
        self,
        name: str,
        log: RedisLog,
        failed: FailedBuilds,
        judge: Gate,
        training: TrainingOptions | None = None,
    ) -> _Built:
        """Builds a snapshot of the current one and the changes since, and asks the gate.

        Args:
            failed: Takes note of a failure, so that it is not repeated at once.
            judge: The gate.
            training: Optional; how models are trained again.
        Raises: GateFailed: the gate refuses it. Conflict, and errors of `compaction.compact`.
        """
        judged = await asyncio.to_thread(self._store.alias_in_force, name)
        snapshot_id = ""
        try:
            options = replace(await self._options(name, log), training=training, promote=False)
            embedder = await self._embedder_of(name)
            result = await compaction.compact(options, log, embedder, self._progress())
            snapshot_id = result.snapshot_id
            manifest = await asyncio.to_thread(self._store.manifest, name, snapshot_id)
            verdict = await judge(self._store, manifest, embedder)
            await asyncio.to_thread(check_passed, verdict, snapshot_id, self._store)
        except Conflict:
            raise
        except Exception as error:
            await failed.add(name, snapshot_id, refused=isinstance(error, GateFailed))
            raise
        await failed.clear(name)
        return _Built(manifest, verdict, judged)

    async def _rebuild_reason(self, name: str, log: RedisLog) -> tuple[str, TrainingOptions | None]:
        """Returns why a rebuild is due, and its training; an empty reason if it is not."""
        if self._rebuilds is not None and (reason := await self._rebuilds.take(name)):
            return reason, await self._training(name, log)
        now_s = time.monotonic()
        if now_s - self._age_checked_s.get(name, -math.inf) < _AGE_CHECK_S:
            return "", None
        self._age_checked_s[name] = now_s
        manifest = await asyncio.to_thread(compaction.read_current_manifest, self._store, name)
        age_s = time.time() - manifest.behaviour.newest_time.ToNanoseconds() / 1e9
        if not manifest.HasField("behaviour") or not 0 < self._models_age_s < age_s:
            return "", None
        training = await self._training(name, log)
        if training is None or not training.recorded:
            return "", None
        return f"models know nothing newer than {age_s / 86_400:.1f} days", training

    async def _options(self, name: str, log: RedisLog) -> BuildOptions:
        options = BuildOptions(
            store=self._settings.store,
            collection=name,
            device=self._settings.device,
            golden_queries=self._settings.golden_queries,
            index=IndexOptions(threads=self._settings.threads),
            work_dir=Path(self._settings.work_dir) if self._settings.work_dir else None,
        )
        options = await asyncio.to_thread(compaction.compaction_options, options)
        return replace(options, deleted_users=partial(log.user_states().deleted, name))

    def _progress(self) -> TextProgress:
        return TextProgress(lambda line: _log.info("progress", extra={"line": line}))

    async def _training(self, name: str, log: RedisLog) -> TrainingOptions | None:
        """Returns options to retrain with recorded interactions; None without earlier training."""
        manifest = await asyncio.to_thread(compaction.read_current_manifest, self._store, name)
        if not manifest.HasField("behaviour"):
            return None
        training = inherit_options(
            TrainingOptions(interactions=NO_INTERACTIONS, append=True), manifest.behaviour
        )
        logged = log.user_states().logged(name)
        rows = await add_recorded(training.interactions, logged, training.kind_weights)
        return replace(training, interactions=rows.interactions, recorded=rows.added)

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


async def main(argv: list[str]) -> None:
    """Runs until it receives a signal."""
    config = settings.load_from_process(UpkeepSettings, argv)
    telemetry.configure_logging(config.log_level, "upkeep")
    if not config.redis:
        raise SettingsError("upkeep maintains change logs; say where they are with --redis URL")
    store = Store.open(config.store)
    async with contextlib.AsyncExitStack() as stack:
        logs = ChangeLogs(
            store, config.redis, who=aliases.operator_name(), users_url=config.redis_users
        )
        stack.push_async_callback(logs.close)
        addresses = parse_addresses(config.embedding, "--embedding")
        clients = {one: await stack.enter_async_context(EmbeddingClient(one)) for one in addresses}
        redis = connect(config.redis, timeout_s=REDIS_TIMEOUT_S)
        stack.push_async_callback(redis.aclose)
        embedders = Embedders(clients) if clients else None
        admin = None
        if config.retrieval:
            admin = await stack.enter_async_context(AdminClient(config.retrieval))
        upkeep = Maintenance(config, store, logs, embedders, RebuildRequests(redis), admin)
        tasks: list[asyncio.Task[None]] = []

        async def ready() -> None:
            tasks.append(asyncio.create_task(upkeep.run()))

        async def close() -> None:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

        await serving.serve(config, [], ready=ready, close=close)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "upkeep")
