"""Keeps change logs short: `python -m index_builder.upkeep --store DIR --redis URL …`.

Every `every_s` seconds it archives the change log of each collection, compacts where changes have
added up, and trims. Several may run: what one does, the others leave alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from index_builder import compaction
from index_builder.progress import Lines
from index_builder.records import BuildOptions, IndexOptions
from index_builder.upkeep_settings import UpkeepSettings, parse_age
from nearline import serving, settings, telemetry
from nearline.clients import EmbeddingClient
from nearline.errors import Conflict, NearlineError, NotFound, SettingsError
from nearline.snapshot import Store
from retrieval.changes.logs import ChangeLogs
from retrieval.changes.trimming import trim
from retrieval.life import aliases

_log = logging.getLogger("index_builder.upkeep")


class Upkeep:
    """Looks after the change logs of a store.

    Args:
        chosen: Settings.
        store: The store.
        logs: Its change logs.
        embedder: Embeds changes that have no vectors; None: there is no service for that.
    """

    def __init__(
        self,
        chosen: UpkeepSettings,
        store: Store,
        logs: ChangeLogs,
        embedder: EmbeddingClient | None,
    ) -> None:
        self._chosen = chosen
        self._store = store
        self._logs = logs
        self._embedder = embedder
        self._age_s = parse_age(chosen.age)

    async def run(self) -> None:
        """Goes round for ever; what fails in one round is tried again in the next."""
        while True:
            try:
                names = self._chosen.collection_names()
                for name in names or await asyncio.to_thread(self._store.collections):
                    await self._look_after(name)
            except NearlineError as error:
                _log.warning("store not looked after", extra={"reason": error.message})
            await asyncio.sleep(self._chosen.every_s)

    async def _look_after(self, name: str) -> None:
        try:
            await self.round(name)
        except Conflict as error:
            _log.info("left to others", extra={"collection": name, "reason": error.message})
        except NearlineError as error:
            _log.warning("not looked after", extra={"collection": name, "reason": error.message})
        except Exception:
            # Whatever it was, the other collections are still looked after.
            _log.exception("not looked after", extra={"collection": name})

    async def round(self, name: str) -> bool:
        """Archives, compacts where that is due, and trims; tells whether it compacted.

        Raises: NotReady: the log is away. Conflict: somebody else compacts. As `compact`.
        """
        if await asyncio.to_thread(self._store.log_in_force, name) is None:
            return False
        log = self._logs.log(name)
        try:
            due = await compaction.due(self._store, log, self._chosen.share, self._age_s)
        except NotFound:
            return False  # Nothing is published: it is archived, and that is all.
        if not due.reason or not self._chosen.compact:
            await trim(self._store, log)
            return False
        _log.info("compacting", extra={"collection": name, "reason": due.reason})
        options = BuildOptions(
            store=self._chosen.store,
            collection=name,
            golden_queries=self._chosen.golden_queries,
            index=IndexOptions(threads=self._chosen.threads),
            work_dir=Path(self._chosen.work_dir) if self._chosen.work_dir else None,
        )
        options = await asyncio.to_thread(compaction.compaction_options, options)
        options = replace(options, erased=partial(log.user_states().deleted, name))
        progress = Lines(lambda line: _log.info("progress", extra={"line": line}))
        result = await compaction.compact(options, log, self._embedder, progress)
        _log.info("compacted", extra={"collection": name, "snapshot_id": result.snapshot_id})
        await asyncio.to_thread(compaction.prune_compacted, self._store, name, self._chosen.keep)
        return True


async def main(argv: list[str]) -> None:
    """Runs until it is told to stop."""
    chosen = settings.load_from_process(UpkeepSettings, argv)
    telemetry.configure_logging(chosen.log_level, "upkeep")
    if not chosen.redis:
        raise SettingsError("upkeep looks after change logs; say where they are with --redis URL")
    parse_age(chosen.age)
    store = Store.open(chosen.store)
    async with contextlib.AsyncExitStack() as stack:
        logs = ChangeLogs(store, chosen.redis, who=aliases.who_am_i())
        stack.push_async_callback(logs.close)
        embedder = None
        if chosen.embedding:
            embedder = await stack.enter_async_context(EmbeddingClient(chosen.embedding))
        upkeep = Upkeep(chosen, store, logs, embedder)
        tasks: list[asyncio.Task[None]] = []

        async def ready() -> None:
            tasks.append(asyncio.create_task(upkeep.run()))

        async def close() -> None:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

        await serving.serve(chosen, [], ready=ready, close=close)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "upkeep")
