"""Which collections of a Milvus no snapshot of a store needs any more, and their removal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nearline.snapshot import Store
from nearline.times import from_us
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates, store_identity

# An export that began later may still run.
EXPORT_GRACE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedCollection:
    """A collection of Milvus that was made from the store, and what becomes of it.

    kept: Why it stays; empty: it goes. started_us: When the export of it began.
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
    """Decides which collections of Milvus may go, newest snapshot first.

    Those go whose snapshot is gone from the store, and those that are not whole and began over a
    day ago. Those made from another store, or that nothing says what they were made from, are
    somebody else's and do not appear.

    Args:
        store, collection: What they were made from.
        client: The Milvus.
        removing: Snapshots that are about to be removed from the store.
        now: Time to count from; None: now.
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
    return sorted(strays, key=lambda one: one.snapshot_id, reverse=True)


async def drop_collections(
    store: Store, collection: str, client: MilvusClient, planned: Sequence[ExportedCollection]
) -> list[str]:
    """Drops what a plan says, and gives its names; what was exported again since stays."""
    states = CollectionStates(client)
    in_force = store.alias_in_force(collection)
    served = {in_force.current, in_force.canary}
    gone = []
    for one in planned:
        if one.kept:
            continue
        state = await states.read(one.name)
        if state is None or state.started_us != one.started_us:
            continue
        # Somebody may have promoted it, or brought it to its end, since the plan was made.
        if state.whole and state.snapshot_id in served:
            continue
        # The state last, so that what is left of a killed removal is found again.
        await client.drop(one.name)
        await states.remove(one.name)
        gone.append(one.name)
    return gone


def _reason_to_keep(state: CollectionState, stored: Collection[str], now: datetime) -> str:
    if state.snapshot_id in stored:
        if state.whole:
            return "its snapshot is in the store"
        if now - from_us(state.started_us) < EXPORT_GRACE:
            return "its export may still run"
    return ""
