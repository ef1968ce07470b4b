"""Shards in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from nearline.errors import SettingsError
from nearline.snapshot import Store
from retrieval.backends import faiss_index
from retrieval.catalogue import LoadedShard, Shelf, load_shards
from retrieval.in_force import in_force
from retrieval.search_threads import SearchThreads
from retrieval.served import ServedCollection


class LocalShards:
    """Shards of this process, and the threads that search them.

    Args:
        threads: Threads; FAISS stays on one core in each.
    """

    def __init__(self, threads: int) -> None:
        self.shelf = Shelf()
        self._threads = SearchThreads(threads, faiss_index.use_one_thread)

    async def load(
        self, store: Store, collections: Sequence[str], numbers: Collection[int] | None = None
    ) -> list[ServedCollection]:
        """Loads what the aliases name; see `load_shards`. Collections come one after another.

        Args:
            store: The store.
            collections: Names; none: all.
            numbers: Shards to load; None: all, and only then can the result be served.
        Raises: as `load_shards`. SettingsError: no collection has any of the shards.
        """
        served = []
        for snapshot in await asyncio.to_thread(in_force, store, collections):
            loaded: list[LoadedShard] = await asyncio.to_thread(
                load_shards, store, snapshot, numbers, threads=self._threads
            )
            for shard in loaded:
                self.shelf.put(shard)
            served.append(ServedCollection(snapshot, [one.shard for one in loaded]))
        if not any(self.shelf):
            raise SettingsError(
                f"no collection of {store.url} has a shard {_numbers(numbers or ())}; "
                "correct --shard"
            )
        return served

    async def close(self) -> None:
        """Waits for searches that run, then lets go of the files."""
        await asyncio.to_thread(self._threads.close)
        self.shelf.close()


def _numbers(numbers: Collection[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
