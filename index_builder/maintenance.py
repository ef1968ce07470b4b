"""Maintains change logs: `python -m index_builder.maintenance --store DIR --redis URL …`.

Every `every_s` seconds it archives and trims the change log of each collection. A second task
counts trends every second. A third one builds, one collection at a time: it compacts a log if
enough changes have accumulated, and proposes a new snapshot if requests drifted or models are old.
Several instances with one folder as their store skip the builds of the others, and so do those over
a bucket with one Redis.
"""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import NamedTuple

from index_builder.pipeline import compaction, upkeep_metrics
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.releases.drift import measure_drift
from index_builder.releases.release_loop import ReleaseLoop
from index_builder.releases.upkeep_builds import UpkeepBuilds
from nearline import serving, settings, telemetry
from nearline.clients import AdminClient, EmbeddingClient
from nearline.durations import parse_duration
from nearline.errors import Conflict, NearlineError, NotFound, SettingsError
from nearline.store.snapshot import Store
from retrieval.changelog.redis_log import RedisLog
from retrieval.changelog.registry import REDIS_TIMEOUT_S, ChangeLogs
from retrieval.changelog.retention import trim_log
from retrieval.embedders.endpoints import Embedders
from retrieval.redis_client.connection import Redis, connect
from retrieval.shards.topology import parse_addresses
from retrieval.snapshots import aliases, retention
from retrieval.snapshots.training_statuses import TrainingStatuses
from retrieval.trends.trend_upkeep import TrendUpkeep

_log = logging.getLogger("index_builder.upkeep")
# Pruning costs reading the manifests of all snapshots; measuring drift, all recorded requests.
_RARELY_S = 600.0


class _Due(NamedTuple):
    """Findings of the chores: whether compaction is due, whether a proposal is pending, and the
    drift of the current snapshot.
    """

    check: compaction.CompactionCheck
    pending: bool
    drift: float


class _Collection:
    """State of a collection.

    log_id: Its change log, empty if it has none; a collection that was dropped and created again
        has another.
    lock: Held by a build, and by the chores that could disturb one.
    due: Newest findings of the chores; None once a build has considered them.
    rare_s: Time at which snapshots are pruned, and drift is measured, next.
    epoch, drift: Drift when it was last measured, and the epoch of the snapshot.
    log_changes: Changes in the log before it was last trimmed; -1 if it was not.
    """

    def __init__(self, log_id: str) -> None:
        self.log_id = log_id
        self.lock = asyncio.Lock()
        self.due: _Due | None = None
        self.rare_s = 0.0
        self.epoch, self.drift = 0, 0.0
        self.log_changes = -1


class Maintenance:
    """Maintains the change logs of a store.

    Args:
        config: Settings.
        store: The store.
        logs: The change logs of the store.
        embedders: Embed those changes that have no vector. Optional.
        admin: A router that tries snapshots. Optional.
        redis: Leases builds, so that no other upkeep builds the same collection. Optional.
        statuses: Receive the status of trainings. Optional.
    Raises: SettingsError: Trials are too short. InvalidRequest: A duration cannot be read.
    """

    def __init__(
        self,
        config: UpkeepSettings,
        store: Store,
        logs: ChangeLogs,
        embedders: Embedders | None,
        admin: AdminClient | None = None,
        redis: Redis | None = None,
        statuses: TrainingStatuses | None = None,
    ) -> None:
        self._settings = config
        self._store = store
        self._logs = logs
        self._age_s = parse_duration(config.age, "age")
        self._keep_age = timedelta(seconds=parse_duration(config.keep_age, "keep_age"))
        self._loop = ReleaseLoop(config, store, admin)
        self._builds = UpkeepBuilds(config, store, embedders, self._loop, redis, statuses)
        self._collections: dict[str, _Collection] = {}
        self._round_ended = asyncio.Event()

    async def run(self) -> None:
        """Runs forever; work that fails is retried in a later round."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_chores())
            tasks.create_task(self._run_builds())

    async def run_once(self, name: str) -> bool:
        """Does the chores of a collection, then builds if due; returns whether it built.

        Raises: As `do_chores` and `build_if_due`.
        """
        await self.do_chores(name)
        return await self.build_if_due(name)

    async def do_chores(self, name: str) -> None:
        """Archives and trims the change log of a collection, and moves its proposal on.

        During a build, the proposal stays as it is: a trial that begins would end the build.

        Raises: NotReady: the log is unavailable. StoreError.
        """
        # Reading it also makes the store notice that the collection was dropped.
        alias = await asyncio.to_thread(self._store.newest_alias_record, name)
        record = await asyncio.to_thread(self._store.log_in_force, name)
        log_id = "" if record is None else record.log_id
        known = self._collections.get(name)
        is_gone = alias is None or alias.dropped
        if is_gone or (known is not None and known.log_id != log_id):
            self._forget(name)
        if is_gone:
            return
        one = self._collections.setdefault(name, _Collection(log_id))
        if record is None:
            # No live change was ever made, but there may be interactions to train on.
            if one.lock.locked():
                return
            async with one.lock:
                nothing = await asyncio.to_thread(compaction.no_changes, self._store, name)
                await self._do_rare_chores(name, one, nothing)
                one.due = _Due(nothing, await self._advance(name), one.drift)
            return
        log = self._logs.log(name)
        if one.lock.locked():
            if await self._archive(name, log) is not None:
                await trim_log(self._store, log)
            return
        async with one.lock:
            check = await self._archive(name, log)
            if check is not None:
                pruned = await self._do_rare_chores(name, one, check)
                one.due = _Due(check, await self._advance(name), one.drift)
                # Trimming costs reading the manifests of all snapshots.
                if pruned or check.log.changes != one.log_changes:
                    await trim_log(self._store, log)
                    one.log_changes = check.log.changes
            upkeep_metrics.success_time.labels(name).set_to_current_time()

    async def build_if_due(self, name: str) -> bool:
        """Compacts or rebuilds a collection if the last chores found that due.

        A compaction goes live once it passes the release gate. A rebuild, after drift or because
        models are behind, is tried or proposed before; see `ReleaseLoop`.

        Returns: Whether it built a snapshot.
        Raises: As `UpkeepBuilds.build_if_due`.
        """
        one = self._collections.get(name)
        if one is None or not self._settings.compact:
            return False
        async with one.lock:
            due, one.due = one.due, None
            if due is None:
                return False
            log = self._logs.log(name)
            try:
                built = await self._builds.build_if_due(
                    name, log, due.check, pending=due.pending, drift=due.drift
                )
                if built:
                    one.rare_s = 0.0  # It has made others redundant.
                return built
            finally:
                if self._collections.get(name) is not one:
                    self._forget(name)  # It was dropped during the build.

    async def _run_chores(self) -> None:
        while True:
            try:
                names = self._settings.collection_names()
                names = names or await asyncio.to_thread(self._store.collections)
                for name in self._collections.keys() - set(names):
                    self._forget(name)
                for name in names:
                    await self._attempt(name, self.do_chores(name))
                upkeep_metrics.round_time.set_to_current_time()
                self._round_ended.set()
            except NearlineError as error:
                _log.warning("store not maintained", extra={"reason": error.message})
            except Exception:
                # Upkeep that ends would not be noticed: it answers health checks all the same.
                _log.exception("store not maintained")
            await asyncio.sleep(self._settings.every_s)

    async def _run_builds(self) -> None:
        """Builds after each round of chores: one at a time, since a build takes much memory."""
        while True:
            await self._round_ended.wait()
            self._round_ended.clear()
            for name in list(self._collections):
                await self._attempt(name, self.build_if_due(name))

    async def _attempt(self, name: str, work: Awaitable[object]) -> None:
        """Waits for work on a collection; an error is logged, and leaves the others maintained."""
        try:
            await work
        except Conflict as error:
            _log.info("skipped", extra={"collection": name, "reason": error.message})
        except NearlineError as error:
            _log.warning("not maintained", extra={"collection": name, "reason": error.message})
        except Exception:
            _log.exception("not maintained", extra={"collection": name})

    async def _archive(self, name: str, log: RedisLog) -> compaction.CompactionCheck | None:
        """Returns whether compaction is due; None if no snapshot is published yet."""
        settings = self._settings
        try:
            check = await compaction.check_compaction(
                self._store, log, settings.share, self._age_s, settings.log_bytes
            )
        except NotFound:
            return None
        upkeep_metrics.show(name, check.changes, check.log.changes, check.log.bytes)
        return check

    async def _do_rare_chores(
        self, name: str, one: _Collection, check: compaction.CompactionCheck
    ) -> bool:
        """Removes snapshots that nobody needs, and measures drift.

        If the log is too large, all snapshots that are not in use go.

        Returns: Whether it was time to.
        """
        if time.monotonic() < one.rare_s and check.epoch == one.epoch:
            return False
        one.rare_s, one.epoch = time.monotonic() + _RARELY_S, check.epoch
        config = self._settings
        keep = 0 if check.log.bytes > config.log_bytes else config.keep
        planned = await asyncio.to_thread(
            retention.plan_prune, self._store, name, keep, min_age=self._keep_age
        )
        await asyncio.to_thread(retention.prune, self._store, name, planned)
        removed = [each.name for each in planned if not each.kept]
        if removed:
            _log.info("pruned", extra={"collection": name, "snapshots": removed})
        try:
            one.drift = await asyncio.to_thread(measure_drift, self._store, name)
            upkeep_metrics.drift.labels(name).set(one.drift)
        except NearlineError as error:
            one.drift = 0.0
            _log.warning("drift not measured", extra={"collection": name, "reason": error.message})
        return True

    async def _advance(self, name: str) -> bool:
        """Takes the next step of a proposal; returns whether one is pending."""
        try:
            return await self._loop.advance(name)
        except NearlineError as error:
            _log.warning(
                "proposal not advanced", extra={"collection": name, "reason": error.message}
            )
            return True

    def _forget(self, name: str) -> None:
        """Forgets a collection that was dropped, or that has another change log now."""
        self._collections.pop(name, None)
        self._builds.forget(name)
        self._loop.forget(name)
        self._logs.forget(name)
        upkeep_metrics.forget(name)


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
        statuses = TrainingStatuses(redis)
        upkeep = Maintenance(config, store, logs, embedders, admin, redis, statuses)
        trends = TrendUpkeep(
            store, logs.clients[-1], config.collection_names(), upkeep_metrics.show_trends
        )
        tasks: list[asyncio.Task[None]] = []

        async def ready() -> None:
            for work in (upkeep.run(), trends.run()):
                tasks.append(asyncio.create_task(work))
                tasks[-1].add_done_callback(_end_after_failure)

        async def close() -> None:
            # A thread of a build cannot be ended, and the interpreter would wait for it, even if
            # its task has ended. The next start goes on with the build, as after a kill.
            end = threading.Timer(config.grace_s, _end_in_a_build, (config.grace_s,))
            end.daemon = True
            end.start()
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

        await serving.serve(config, [], ready=ready, close=close)


def _end_in_a_build(grace_s: float) -> None:
    _log.warning("ended in the middle of a build", extra={"grace_s": grace_s})
    os._exit(0)


def _end_after_failure(task: asyncio.Task[None]) -> None:
    """Ends the process: without its task, it would go on to answer health checks."""
    if not task.cancelled():
        _log.critical("ended by an error", exc_info=task.exception())
        os._exit(1)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "upkeep")
