"""State of every Nearline collection in Milvus, kept in a table of its own.

Milvus has no transactions across collections, so correctness rests on the order of writes: an
incomplete state is written before the first row, a complete one after the last row, and the
position of live changes after the changes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nearline.errors import SnapshotMismatch
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import STATE_SUFFIX, STATES

# Incremented whenever the layout of rows changes.
FORMAT = 1
_PLACEHOLDER_VECTOR = [0.0, 1.0]
_NOWHERE = (0,) * PARTITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionState:
    """State of a Milvus collection.

    store, collection, snapshot_id: The snapshot that was exported; see `store_identity`.
    whole: Whether the export is complete.
    index: HNSW or FLAT.
    words: Whether the collection supports lexical search (BM25).
    documents, chunks: Counts of the snapshot.
    single_valued: Attributes that have no list in any document.
    expiring: Whether some document expires.
    started_us: Start of the export, microseconds since 1970.
    partition_by: Attribute by which 0.2.0 partitioned the collection. Its rows need a field that is
        no longer written, so that it is exported again instead of served.
    log_id, positions: Change log whose changes the collection contains, and the position reached in
        each partition; empty if it contains no live changes.
    begun: Positions up to which changes may be written in part; the rest must be written together
        with them.
    seen: Timestamp of the last write of changes; 0 if unknown, None if there was none.
    oldest_change_us: When the log received the first of these changes, microseconds since 1970; 0
        if there are none.
    lost: Why the changes no longer belong to a log, and the remedy; empty if they do.
    """

    store: str
    collection: str
    snapshot_id: str
    whole: bool
    index: str
    words: bool
    documents: int
    chunks: int
    single_valued: frozenset[str]
    expiring: bool
    started_us: int
    partition_by: str = ""
    log_id: str = ""
    positions: tuple[int, ...] = field(default=_NOWHERE)
    begun: tuple[int, ...] = field(default=_NOWHERE)
    seen: int | None = None
    oldest_change_us: int = 0
    lost: str = ""


class CollectionStates:
    """The table of collection states.

    Args:
        client: Client of the Milvus server.
    """

    def __init__(self, client: MilvusClient) -> None:
        self._client = client

    async def create(self) -> None:
        """Creates the table if it does not exist; must be called first."""
        await self._client.create_state_table(STATES)

    async def read(self, name: str, *, newest: bool = True) -> CollectionState | None:
        """Returns the state of a Milvus collection; None if it has none.

        Args:
            name: Name of the Milvus collection.
            newest: If False, returns the available state without waiting for the latest writes.
        Raises: SnapshotMismatch: The state was written by another version of Nearline.
        """
        seen = 0 if newest else None
        rows = await self._client.query(STATES, any_of("key", [name]), ["state"], seen=seen)
        return _parse_state(rows[0]) if rows else None

    async def read_all(self) -> Mapping[str, CollectionState]:
        """Returns all states, by name of the Milvus collection."""
        rows = await self._client.query(STATES, "", ["state"], seen=0)
        return {row["key"]: _parse_state(row) for row in rows}

    async def write(
        self,
        name: str,
        state: CollectionState,
        *,
        writer: str = "",
        timeout_s: float | None = None,
    ) -> int:
        """Writes the state of a collection; returns the timestamp from which reads see it.

        With a writer of `MilvusClient.take_over`, raises SnapshotGone if others took over.
        """
        record = {
            **dataclasses.asdict(state),
            "format": FORMAT,
            "single_valued": sorted(state.single_valued),
            "positions": list(state.positions),
            "begun": list(state.begun),
        }
        row = {"key": name, "state": record, "vector": _PLACEHOLDER_VECTOR}
        table = f"{writer}{STATE_SUFFIX}" if writer else STATES
        return await self._client.upsert(table, [row], timeout_s=timeout_s)

    async def remove(self, name: str) -> None:
        """Removes the state of a collection."""
        await self._client.delete(STATES, any_of("key", [name]))


def store_identity(store: Store) -> str:
    """Returns a unique name of a store; the name of a local folder includes the host name."""
    return store.url if "://" in store.url else f"file://{socket.gethostname()}{store.url}"


async def drop_removed(store: Store, collection: str, client: MilvusClient) -> list[str]:
    """Drops the Milvus collections of removed snapshots of a collection; returns their names.

    Collections of another store or of unknown origin stay.
    """
    states = CollectionStates(client)
    await states.create()
    source = store_identity(store), collection
    exported = {
        name: state.snapshot_id
        for name, state in (await states.read_all()).items()
        if (state.store, state.collection) == source
    }
    # Read after the states, since a snapshot is in the store before it is exported.
    stored = set(await asyncio.to_thread(store.snapshot_ids, collection))
    removed = [name for name, snapshot_id in exported.items() if snapshot_id not in stored]
    for name in removed:
        # The state goes last, so that an interrupted removal is found again.
        await client.drop(name)
        await states.remove(name)
    return removed


def _parse_state(row: Mapping[str, Any]) -> CollectionState:
    record = dict(row["state"])
    version = record.pop("format", None)
    if version != FORMAT:
        raise SnapshotMismatch(
            f"Milvus collection {row['key']!r} has layout {version}, but this version of Nearline "
            f"reads {FORMAT}; export the snapshot again: nearline snapshots export --to milvus"
        )
    record["single_valued"] = frozenset(record["single_valued"])
    for name in ("positions", "begun"):
        record[name] = tuple(record.get(name, _NOWHERE))
    return CollectionState(**record)
