"""Finds and drops Milvus collections that no snapshot of a store needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nearline.store.snapshot import Store
from nearline.times import from_us
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates, store_identity

# An export that started more recently may still be running.
EXPORT_GRACE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedCollection:
    """A Milvus collection that was exported from a store, and whether to keep it.

    kept: Why the collection is kept; empty if it is to be dropped.
    started_us: Start of its export, microseconds since 1970.
    """

    name: str
    snapshot_id: str
    chunks: int
    kept: str
    started_us: int


async def plan_collection_prune(
    store: Store,
    collection: str,
    client: MilvusClient,
    *,
    removing: Collection[str] = (),
    now: datetime | None = None,
) -> list[ExportedCollection]:
    """Decides which Milvus collections to drop; returns them with the newest snapshot first.

    A collection is dropped if its snapshot is no longer in the store, or if its export is
    incomplete and started over a day ago. Collections of another store or of unknown origin are not
    listed.

    Args:
        store, collection: The exported collection.
        client: Client of the Milvus server.
        removing: Snapshots that are about to be removed from the store.
        now: Current time; None uses the clock.
    """
    now = now or datetime.now(UTC)
    stored = set(store.snapshot_ids(collection)) - set(removing)
    source = store_identity(store)
    states = CollectionStates(client)
    await states.create()
    strays = [
        ExportedCollection(
            name=name,
            snapshot_id=state.snapshot_id,
            chunks=state.chunks,
            kept=_reason_to_keep(state, stored, now),
            started_us=state.started_us,
        )
        for name, state in (await states.read_all()).items()
        if (state.store, state.collection) == (source, collection)
    ]
    return sorted(strays, key=lambda stray: stray.snapshot_id, reverse=True)


async def drop_collections(
    store: Store, collection: str, client: MilvusClient, planned: Sequence[ExportedCollection]
) -> list[str]:
    """Drops the collections of a plan, except those exported again since; returns their names."""
    states = CollectionStates(client)
    newest = store.newest_alias_record(collection)
    served = set() if newest is None else {newest.current, newest.canary} - {""}
    dropped = []
    for stray in planned:
        if stray.kept:
            continue
        state = await states.read(stray.name)
        if state is None or state.started_us != stray.started_us:
            continue
        # Since the plan was made, the snapshot may have been promoted, or its export completed.
        if state.whole and state.snapshot_id in served:
            continue
        # The state goes last, so that an interrupted removal is found again.
        await client.drop(stray.name)
        await states.remove(stray.name)
        dropped.append(stray.name)
    return dropped


async def drop_all(store: Store, collection: str, client: MilvusClient) -> None:
    """Drops what Milvus holds of a collection whose snapshots were all removed."""
    planned = await plan_collection_prune(store, collection, client)
    await drop_collections(store, collection, client, planned)


def _reason_to_keep(state: CollectionState, stored: Collection[str], now: datetime) -> str:
    if state.snapshot_id in stored:
        if state.whole:
            return "its snapshot is in the store"
        if now - from_us(state.started_us) < EXPORT_GRACE:
            return "its export may still run"
    return ""
