"""Maintains change logs: `python -m index_builder.maintenance --store DIR --redis URL …`.

Every `every_s` seconds it archives the change log of each collection, compacts it if enough changes
have accumulated, and trims it. Several instances may run; each skips the work of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from dataclasses import replace
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
from index_builder.pipeline.training_data import inherit_options
from index_builder.releases.build_gate import check_promoted, gate_of_build
from nearline import serving, settings, telemetry
from nearline.clients import EmbeddingClient
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
from retrieval.snapshots import aliases, retention

_log = logging.getLogger("index_builder.upkeep")
# After a refusal by the release gate, the same snapshot is compacted again this much later: the
# changes since may make a difference, and each attempt costs as much as a build.
_REFUSED_RETRY_S = 6 * 3600.0


class _Refusal(NamedTuple):
    """A compacted snapshot that the gate refused (empty: unknown), the epoch then, and when."""

    snapshot_id: str
    epoch: int
    time_s: float


class Maintenance:
    """Maintains the change logs of a store.

    Args:
        config: Settings.
        store: The store.
        logs: The change logs of the store.
        embedders: Embed those changes that have no vector. Optional.
        rebuilds: Rebuilds that routers request after a drift. Optional.
    """

    def __init__(
        self,
        config: UpkeepSettings,
        store: Store,
        logs: ChangeLogs,
        embedders: Embedders | None,
        rebuilds: RebuildRequests | None = None,
    ) -> None:
        self._settings = config
        self._store = store
        self._logs = logs
        self._embedders = embedders
        self._rebuilds = rebuilds
        self._age_s = parse_duration(config.age, "age")
        self._refused: dict[str, _Refusal] = {}
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
        """Archives, compacts if due, and trims; returns whether it compacted.

        If a router requested a rebuild after a drift, models are trained again, too. A failed
        rebuild is not retried until it is requested again.

        Raises: NotReady: the log is unavailable. Conflict: another process compacts. GateFailed:
            the release gate refuses the new snapshot; the next attempt follows hours later, or
            once another snapshot is current. As `compact`.
        """
        if await asyncio.to_thread(self._store.log_in_force, name) is None:
            return False
        log = self._logs.log(name)
        try:
            check = await compaction.check_compaction(
                self._store, log, self._settings.share, self._age_s
            )
            upkeep_metrics.pending_changes.labels(name).set(check.changes)
            upkeep_metrics.show_log(name, await log.state(), await log.size_bytes())
        except NotFound:
            return False  # No snapshot is published yet, so there is nothing to compact.
        reason = "" if await self._was_refused(name) else check.reason
        requested = await self._rebuild_reason(name)
        if not (reason or requested) or not self._settings.compact:
            await trim_log(self._store, log)
            return False
        _log.info("compacting", extra={"collection": name, "reason": requested or reason})
        options = BuildOptions(
            store=self._settings.store,
            collection=name,
            device=self._settings.device,
            golden_queries=self._settings.golden_queries,
            gate=_gate(self._settings.force_promote),
            index=IndexOptions(threads=self._settings.threads),
            work_dir=Path(self._settings.work_dir) if self._settings.work_dir else None,
        )
        options = await asyncio.to_thread(compaction.compaction_options, options)
        options = replace(options, deleted_users=partial(log.user_states().deleted, name))
        if requested:
            options = replace(options, training=await self._training(name, log))
        progress = TextProgress(lambda line: _log.info("progress", extra={"line": line}))
        embedder = await self._embedder_of(name)
        refused = ""
        try:
            result = await compaction.compact(options, log, embedder, progress)
            refused = result.snapshot_id
            await asyncio.to_thread(check_promoted, result, self._store)
        except GateFailed:
            await self._note_refusal(name, refused)
            raise
        self._refused.pop(name, None)
        _log.info("compacted", extra={"collection": name, "snapshot_id": result.snapshot_id})
        await asyncio.to_thread(compaction.prune_compacted, self._store, name, self._settings.keep)
        return True

    async def _was_refused(self, name: str) -> bool:
        """Returns whether the gate refused a compaction of the current snapshot recently."""
        refusal = self._refused.get(name)
        if refusal is None or time.monotonic() - refusal.time_s >= _REFUSED_RETRY_S:
            return False
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        return record.epoch == refusal.epoch

    async def _note_refusal(self, name: str, snapshot_id: str) -> None:
        """Postpones the next compaction, and removes the snapshot that was refused before.

        The refused snapshot stays, so that it can be examined, or promoted with a reason.
        """
        earlier = self._refused.get(name)
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        self._refused[name] = _Refusal(snapshot_id, record.epoch, time.monotonic())
        if earlier is not None:
            planned = await asyncio.to_thread(retention.plan_prune, self._store, name, 0)
            mine = [one for one in planned if one.name == earlier.snapshot_id]
            await asyncio.to_thread(retention.prune, self._store, name, mine)

    async def _rebuild_reason(self, name: str) -> str:
        """Takes the reason of a requested rebuild; empty if there is none or it has to wait."""
        if self._rebuilds is None or not self._settings.compact:
            return ""
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        # A new snapshot would end the trial of a canary.
        return "" if record.canary else await self._rebuilds.take(name)

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
    parse_duration(config.age, "age")
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
        upkeep = Maintenance(config, store, logs, embedders, RebuildRequests(redis))
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
