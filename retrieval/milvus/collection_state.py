"""What is in each of our collections of Milvus, in a table beside them: the word that it is whole.

Milvus has no transactions over collections, so the order of writes carries the meaning: a state
that is not whole is written before the first row, a whole one after the last; and how far live
changes are is written after the changes.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nearline.errors import SnapshotMismatch
from nearline.snapshot import PARTITIONS, Store
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import STATES

# Raised whenever rows are laid out in another way.
FORMAT = 1
_VECTOR = [0.0, 1.0]
_NOWHERE = (0,) * PARTITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionState:
    """What is in a collection of Milvus.

    store, collection, snapshot_id: What it was made from; see `store_identity`.
    whole: All of it is there. index: HNSW or FLAT. words: It has BM25.
    documents, chunks: Of the snapshot.
    single_valued: Attributes of which no document has a list. expiring: Some document expires.
    partition_by: Attribute that it is cut up by; empty: it is not.
    started_us: When writing it began, microseconds since 1970.
    log_id, positions: The change log whose changes are in it, and how far, by partition; empty:
    none beyond the snapshot. begun: Positions up to which changes may be in it in part, where that
    is further: they are to be written together. seen: Timestamp of the last of these writes; 0:
    not known, None: there was none.
    oldest_change_us: When the log took the first of them, microseconds since 1970; 0: there are
    none. lost: Why they belong to no log any more, and the remedy; empty: they do.
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
    """The table of states.

    Args:
        client: The Milvus.
    """

    def __init__(self, client: MilvusClient) -> None:
        self._client = client

    async def make(self) -> None:
        """Makes the table where there is none; to be called before anything else."""
        await self._client.create_states(STATES)

    async def read(self, name: str, *, newest: bool = True) -> CollectionState | None:
        """Reads the state of a collection of Milvus; None: there is none.

        Args:
            name: Name of the collection.
            newest: False: what is at hand, without waiting; on a server it may be a little older.
        Raises: SnapshotMismatch: of another version of Nearline.
        """
        seen = 0 if newest else None
        rows = await self._client.query(STATES, any_of("key", [name]), ["state"], seen=seen)
        return _state_of(rows[0]) if rows else None

    async def all(self) -> Mapping[str, CollectionState]:
        """Reads all states, by the name of the collection of Milvus."""
        rows = await self._client.query(STATES, "", ["state"], seen=0)
        return {row["key"]: _state_of(row) for row in rows}

    async def write(
        self, name: str, state: CollectionState, *, timeout_s: float | None = None
    ) -> int:
        """Writes the state of a collection; gives the timestamp from which reads see it."""
        told = {
            **dataclasses.asdict(state),
            "format": FORMAT,
            "single_valued": sorted(state.single_valued),
            "positions": list(state.positions),
            "begun": list(state.begun),
        }
        row = {"key": name, "state": told, "vector": _VECTOR}
        return await self._client.upsert(STATES, [row], timeout_s=timeout_s)

    async def remove(self, name: str) -> None:
        """Removes the state of a collection."""
        await self._client.delete(STATES, any_of("key", [name]))


def store_identity(store: Store) -> str:
    """Names a store so that no other one has its name: a folder is one of this machine alone."""
    return store.url if "://" in store.url else f"file://{socket.gethostname()}{store.url}"


def _state_of(row: Mapping[str, Any]) -> CollectionState:
    told = dict(row["state"])
    version = told.pop("format", None)
    if version != FORMAT:
        raise SnapshotMismatch(
            f"Milvus collection {row['key']!r} has layout {version}, this version of Nearline "
            f"knows {FORMAT}; export the snapshot again: nearline snapshots export --to milvus"
        )
    told["single_valued"] = frozenset(told["single_valued"])
    for name in ("positions", "begun"):
        told[name] = tuple(told.get(name, _NOWHERE))
    return CollectionState(**told)
