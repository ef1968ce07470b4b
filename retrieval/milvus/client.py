"""Milvus client: the only module that makes pymilvus calls.

Searches, reads and upserts use the asyncio client of pymilvus. Deleting rows and managing
collections use its synchronous client in a thread, because in pymilvus 3.0 only that one notices
that a delete was refused, and can create an index in Milvus Lite. Reads see at least all writes up
to a server timestamp, `seen`. Reads without a timestamp see the data that the server has available,
without waiting.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pymilvus
from numpy.typing import NDArray

from nearline.errors import Unsupported
from retrieval.milvus.connection import MANAGE_S, MilvusConnection
from retrieval.milvus.layout import MAX_ROWS, STATE_SUFFIX, STATES, MilvusHit
from retrieval.milvus.schema import (
    WORDS,
    Bm25,
    chunk_indexes,
    chunk_schema,
    state_indexes,
    state_schema,
)


class Capabilities(NamedTuple):
    """Features of a server.

    words: The server computes BM25 of texts (2.5 or newer, and Lite).
    lite: The server is Milvus Lite.
    """

    version: str
    words: bool
    lite: bool


class MilvusClient:
    """A Milvus client that reconnects automatically; belongs to one event loop.

    See `MilvusConnection` for the errors that every method raises.

    Args:
        uri: "http://host:port", "https://host:port", or a file that ends in .db for Milvus Lite.
        token: "user:password" or an API key; empty for no authentication.
        timeout_s: Default timeout of a call, in seconds.
    """

    def __init__(self, uri: str, token: str = "", *, timeout_s: float = 5.0) -> None:
        self.uri = uri
        self._connection = MilvusConnection(uri, token, timeout_s=timeout_s)
        self._call = self._connection.call
        self._manage = self._connection.manage
        self._last_write = self._connection.last_write

    @property
    def outage(self) -> str:
        """Why the server does not answer; empty while no outage is known."""
        return self._connection.outage

    async def capabilities(self) -> Capabilities:
        """Returns the features of the server, queried once per connection."""
        version = await self._connection.version()
        lite, numbers = "milvus_lite" in version, _parse_version(version)
        return Capabilities(version, lite or numbers >= (2, 5), lite)

    async def create(
        self,
        name: str,
        dim: int,
        metric: str,
        *,
        bm25: Bm25 | None,
        index: str = "HNSW",
    ) -> None:
        """Creates a collection of chunks with its indexes, but does not load it.

        Args:
            name: Name of the Milvus collection.
            dim: Dimension of the vectors.
            metric: IP or L2.
            bm25: Optional; None creates a collection without lexical search.
            index: HNSW or FLAT.
        Raises: Unsupported: The server is too old for `bm25`.
        """
        capabilities = await self.capabilities()
        if bm25 is not None and not capabilities.words:
            raise Unsupported(
                f"Milvus {capabilities.version} has no BM25; lexical search needs 2.5 or newer"
            )
        schema = chunk_schema(dim, words=bm25 is not None, lite=capabilities.lite)
        indexes = chunk_indexes(metric, index, bm25, lite=capabilities.lite)

        def make(client: pymilvus.MilvusClient) -> None:
            # Rows of one write become visible together only if they share one channel.
            client.create_collection(
                name,
                schema=schema,
                num_shards=1,
                consistency_level="Eventually",
                timeout=MANAGE_S,
            )
            client.create_index(name, indexes, timeout=MANAGE_S)

        await self._manage(make)

    async def create_state_table(self, name: str) -> None:
        """Creates the table of states if it does not exist, and loads it; see `schema`."""

        def make(client: pymilvus.MilvusClient) -> None:
            if not client.has_collection(name, timeout=MANAGE_S):
                client.create_collection(
                    name,
                    schema=state_schema(),
                    num_shards=1,
                    consistency_level="Strong",
                    timeout=MANAGE_S,
                )
                client.create_index(name, state_indexes(), timeout=MANAGE_S)
            client.load_collection(name, timeout=MANAGE_S)

        await self._manage(make)

    async def list_collections(self) -> list[str]:
        """Returns the names of all collections, sorted."""
        names: list[str] = await self._manage(lambda client: client.list_collections())
        return sorted(names)

    async def load(self, name: str) -> None:
        """Loads a collection into memory; returns once it can be searched."""
        await self._manage(lambda client: client.load_collection(name, timeout=MANAGE_S))

    async def release(self, name: str) -> None:
        """Releases the memory of a collection."""
        await self._manage(lambda client: client.release_collection(name, timeout=MANAGE_S))

    async def flush(self, name: str) -> None:
        """Flushes all rows to storage, where they are indexed."""
        await self._manage(lambda client: client.flush(name, timeout=MANAGE_S))

    async def count_unindexed(self, name: str) -> int:
        """Counts the flushed rows that are not indexed yet."""

        def look(client: pymilvus.MilvusClient) -> int:
            described = (
                client.describe_index(name, index, timeout=MANAGE_S)
                for index in client.list_indexes(name)
            )
            return max((int(one["pending_index_rows"]) for one in described), default=0)

        return await self._manage(look)

    async def take_over(self, name: str, *, timeout_s: float = MANAGE_S) -> str:
        """Makes the caller the only writer of a collection and of its state.

        The server resolves an alias when it receives a call. So all writes through the aliases of
        earlier callers fail from now on, however long their senders were suspended.

        Returns: An alias of the collection. With `STATE_SUFFIX` it is an alias of `STATES`.
        """
        writer = f"{name}__{secrets.token_hex(8)}"

        def change(client: pymilvus.MilvusClient) -> None:
            # Created first, so that of two callers at a time at least one loses its aliases.
            client.create_alias(name, writer, timeout=timeout_s)
            client.create_alias(STATES, f"{writer}{STATE_SUFFIX}", timeout=timeout_s)
            _end_writers(client, name, timeout_s, keep=writer)

        await self._manage(change)
        return writer

    async def drop(self, name: str) -> None:
        """Drops a collection if it exists; see `take_over` for its writers."""

        def change(client: pymilvus.MilvusClient) -> None:
            _end_writers(client, name, MANAGE_S)
            client.drop_collection(name, timeout=MANAGE_S)

        await self._manage(change)

    async def insert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Adds rows with new keys; returns the timestamp from which reads see them."""
        await self._call(
            lambda client: client.insert(name, list(rows), retry_times=0), MANAGE_S, write=True
        )
        return self._last_write(name)

    async def upsert(
        self, name: str, rows: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> int:
        """Writes rows, replacing those with the same keys; returns the timestamp, see `insert`."""
        await self._call(
            lambda client: client.upsert(name, list(rows), retry_times=0), timeout_s, write=True
        )
        return self._last_write(name)

    async def delete(self, name: str, expression: str, *, timeout_s: float | None = None) -> int:
        """Deletes the rows that match an expression; returns the timestamp, see `insert`.

        The timestamp is 0, which makes reads wait for all writes, if the server does not report it
        (2.3). The timestamp of any later write, to any collection, lies after the delete.
        """
        before = self._last_write(name)
        timeout = MANAGE_S if timeout_s is None else timeout_s
        await self._manage(lambda client: client.delete(name, filter=expression, timeout=timeout))
        after = self._last_write(name)
        return after if after > before else 0

    async def count(
        self,
        name: str,
        expression: str = "",
        *,
        seen: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Counts rows; see `query` for the arguments."""
        (row,) = await self._call(
            lambda client: client.query(
                name,
                filter=expression,
                output_fields=["count(*)"],
                retry_times=0,
                **_consistency(seen),
            ),
            timeout_s,
        )
        return int(row["count(*)"])

    async def search(
        self,
        name: str,
        queries: NDArray[np.float32] | Sequence[str],
        k: int,
        *,
        expression: str = "",
        fields: Sequence[str] = (),
        ef: int | None = None,
        seen: int | None = None,
        timeout_s: float | None = None,
    ) -> list[list[MilvusHit]]:
        """Returns the k best rows of each query, best first; see `query`.

        Args:
            queries: (n, d) vectors; or texts, for the rows with one of their words, by BM25.
            ef: Width of an HNSW search, at least k; None uses the server's default.
        """
        by_vector = isinstance(queries, np.ndarray)
        results = await self._call(
            lambda client: client.search(
                name,
                data=list(queries),
                anns_field="vector" if by_vector else WORDS,
                filter=expression,
                limit=k,
                output_fields=list(fields),
                search_params={"params": {} if ef is None else {"ef": ef}},
                retry_times=0,
                **_consistency(seen),
            ),
            timeout_s,
        )
        found = [_parse_hits(hits) for hits in results]
        if by_vector:
            return found
        # Lite returns BM25 scores with the sign of a distance.
        return [[hit._replace(score=abs(hit.score)) for hit in hits] for hits in found]

    async def query(
        self,
        name: str,
        expression: str,
        fields: Sequence[str],
        *,
        limit: int = MAX_ROWS,
        seen: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Mapping[str, Any]]:
        """Reads the first rows that match an expression, in the order of their keys.

        Args:
            name: Name of the Milvus collection.
            expression: Boolean expression; empty matches all rows.
            fields: Fields to read, in addition to the primary key.
            limit: 1..MAX_ROWS.
            seen: Reads see all writes up to this timestamp. 0 waits for all writes; None reads the
                available data without waiting.
            timeout_s: Timeout in seconds; None uses the default of the client.
        """
        # Lite sorts by key only for an iterator. With a server, an iterator makes pymilvus ignore
        # `seen`.
        lite = (await self.capabilities()).lite
        ordering: Mapping[str, Any] = {"iterator": "True"} if lite else _consistency(seen)
        rows: list[Mapping[str, Any]] = await self._call(
            lambda client: client.query(
                name,
                filter=expression,
                output_fields=list(fields),
                limit=limit,
                retry_times=0,
                **ordering,
            ),
            timeout_s,
        )
        return list(rows)

    async def close(self) -> None:
        """Closes the connections."""
        await self._connection.close()


def _end_writers(
    client: pymilvus.MilvusClient, name: str, timeout_s: float, keep: str = ""
) -> None:
    """Drops the aliases of the writers of a collection, except those of one."""
    for alias in client.list_aliases(timeout=timeout_s)["aliases"]:
        if alias.startswith(f"{name}__") and not (keep and alias.startswith(keep)):
            client.drop_alias(alias, timeout=timeout_s)


def _consistency(seen: int | None) -> dict[str, Any]:
    if seen is None:
        return {"consistency_level": "Eventually"}
    if seen == 0:
        return {"consistency_level": "Strong"}
    return {"consistency_level": "Customized", "guarantee_timestamp": seen}


def _parse_hits(hits: Any) -> list[MilvusHit]:
    # A 2.3 server calls the primary key "id", whatever the name of the field.
    key = "key" if hits and "key" in hits[0] else "id"
    return [MilvusHit(hit[key], hit["distance"], hit["entity"]) for hit in hits]


def _parse_version(version: str) -> tuple[int, int]:
    """Returns major and minor number of a server version; (0, 0) if it has none."""
    numbers = version.lstrip("v").split("-")[0].split(".")
    with contextlib.suppress(ValueError, IndexError):
        return int(numbers[0]), int(numbers[1])
    return 0, 0
