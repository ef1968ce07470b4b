"""What is asked of a Milvus: the one module that knows its client's calls.

Searches, reads and writes go through the client's asyncio half. What makes and drops collections
goes through the other one in a thread, since in pymilvus 3.0 only that half can make an index in
Milvus Lite. Reads see at least what was written up to a `seen` timestamp of the server; without one
they see what the server has at hand, which costs no waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pymilvus
from numpy.typing import NDArray

from nearline.errors import Unsupported
from retrieval.milvus.connection import MANAGE_S, MilvusConnection
from retrieval.milvus.layout import MAX_ROWS, MilvusHit
from retrieval.milvus.schema import (
    WORDS,
    Bm25,
    indexes_of,
    schema_of,
    state_indexes,
    state_schema,
)

# In a collection that is cut up.
_PARTITIONS = 64


class Capabilities(NamedTuple):
    """What the server can do.

    words: It makes BM25 of texts by itself (from 2.5 on, and Lite). lite: It is Milvus Lite.
    partitions: It finds again what is written over in a collection that is cut up; 2.3 puts that
    into another partition than the one in which it looks for it.
    """

    version: str
    words: bool
    lite: bool
    partitions: bool


class MilvusClient:
    """A connection to a Milvus that comes back by itself; belongs to one event loop.

    See `MilvusConnection` for what every method raises.

    Args:
        uri: "http://host:port", "https://host:port", or a file that ends in .db for Milvus Lite.
        token: "user:password" or an API key; empty: none.
        timeout_s: Seconds for a call that sets no limit.
    """

    def __init__(self, uri: str, token: str = "", *, timeout_s: float = 5.0) -> None:
        self.uri = uri
        self._connection = MilvusConnection(uri, token, timeout_s=timeout_s)
        self._ask = self._connection.ask
        self._manage = self._connection.manage
        self._written = self._connection.written

    @property
    def away(self) -> str:
        """Why the server does not answer; empty: it does, as far as is known."""
        return self._connection.away

    async def capabilities(self) -> Capabilities:
        """Returns what the server is; asked once for each connection."""
        version = await self._connection.version()
        lite, numbers = "milvus_lite" in version, _numbers(version)
        return Capabilities(version, lite or numbers >= (2, 5), lite, lite or numbers >= (2, 4))

    async def create(
        self,
        name: str,
        dim: int,
        metric: str,
        *,
        bm25: Bm25 | None,
        index: str = "HNSW",
        partitioned: bool = False,
    ) -> None:
        """Makes a collection of chunks with its indexes; it is not loaded yet.

        Args:
            name: Name.
            dim: Numbers of a vector.
            metric: IP or L2.
            bm25: None: without words. Unsupported where the server cannot make them.
            index: HNSW or FLAT.
            partitioned: Cut up by the field `partition`; Unsupported where the server errs then.
        """
        able = await self.capabilities()
        if bm25 is not None and not able.words:
            raise Unsupported(
                f"Milvus {able.version} has no BM25 function; 2.5 or newer is needed for words"
            )
        if partitioned and not able.partitions:
            raise Unsupported(
                f"Milvus {able.version} loses what is written over in a collection with a "
                "partition key; 2.4 or newer is needed for --partition-by"
            )
        schema = schema_of(dim, words=bm25 is not None, lite=able.lite, partitioned=partitioned)
        partitions = {"num_partitions": _PARTITIONS} if partitioned else {}
        indexes = indexes_of(metric, index, bm25, lite=able.lite)

        def make(client: pymilvus.MilvusClient) -> None:
            # Rows of one write become visible together in one channel alone.
            client.create_collection(
                name,
                schema=schema,
                num_shards=1,
                consistency_level="Eventually",
                timeout=MANAGE_S,
                **partitions,
            )
            client.create_index(name, indexes, timeout=MANAGE_S)

        await self._manage(make)

    async def create_states(self, name: str) -> None:
        """Makes the table of states where it does not exist, and loads it; see `schema`."""

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

    async def names(self) -> list[str]:
        """Lists the collections."""
        names: list[str] = await self._manage(lambda client: client.list_collections())
        return sorted(names)

    async def load(self, name: str) -> None:
        """Loads a collection into the memory of the servers; returns once it answers."""
        await self._manage(lambda client: client.load_collection(name, timeout=MANAGE_S))

    async def release(self, name: str) -> None:
        """Takes a collection out of the memory of the servers."""
        await self._manage(lambda client: client.release_collection(name, timeout=MANAGE_S))

    async def flush(self, name: str) -> None:
        """Has all rows written to the store, where indexes are made of them."""
        await self._manage(lambda client: client.flush(name, timeout=MANAGE_S))

    async def unindexed(self, name: str) -> int:
        """Counts the rows that were written to the store and are in no index yet."""

        def look(client: pymilvus.MilvusClient) -> int:
            described = (
                client.describe_index(name, index, timeout=MANAGE_S)
                for index in client.list_indexes(name)
            )
            return max((int(one["pending_index_rows"]) for one in described), default=0)

        return await self._manage(look)

    async def drop(self, name: str) -> None:
        """Drops a collection; one that does not exist is no error."""
        await self._manage(lambda client: client.drop_collection(name, timeout=MANAGE_S))

    async def insert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Adds rows whose keys are new; gives the timestamp from which reads see them."""
        await self._ask(
            lambda client: client.insert(name, list(rows), retry_times=0), MANAGE_S, write=True
        )
        return self._written(name)

    async def upsert(
        self, name: str, rows: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> int:
        """Writes rows over those of the same keys; gives the timestamp, see `insert`."""
        await self._ask(
            lambda client: client.upsert(name, list(rows), retry_times=0), timeout_s, write=True
        )
        return self._written(name)

    async def delete(self, name: str, expression: str, *, timeout_s: float | None = None) -> int:
        """Deletes the rows that an expression finds; gives the timestamp, see `insert`.

        It is 0, which has reads wait for all, where the server does not say when (2.3): that of any
        later write, of another collection as well, lies after it.
        """
        before = self._written(name)
        await self._ask(
            lambda client: client.delete(name, filter=expression, retry_times=0),
            timeout_s,
            write=True,
        )
        after = self._written(name)
        return after if after > before else 0

    async def count(
        self,
        name: str,
        expression: str = "",
        *,
        seen: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Counts rows; see `query` for what is common."""
        (row,) = await self._ask(
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
        vectors: NDArray[np.float32],
        k: int,
        *,
        expression: str = "",
        fields: Sequence[str] = (),
        ef: int | None = None,
        seen: int | None = None,
        timeout_s: float | None = None,
    ) -> list[list[MilvusHit]]:
        """Finds the k best rows for each of (n, d) vectors, best first; see `query`.

        Args:
            ef: Width of an HNSW search, at least k; None: the server's default.
        """
        params = {} if ef is None else {"ef": ef}
        return await self._search(
            name, list(vectors), "vector", k, expression, fields, params, seen, timeout_s
        )

    async def search_words(
        self,
        name: str,
        texts: Sequence[str],
        k: int,
        *,
        expression: str = "",
        fields: Sequence[str] = (),
        seen: int | None = None,
        timeout_s: float | None = None,
    ) -> list[list[MilvusHit]]:
        """Finds the k best rows for the words of each text; only rows that have one of them."""
        results = await self._search(
            name, list(texts), WORDS, k, expression, fields, {}, seen, timeout_s
        )
        # Lite gives BM25 with the sign of a distance.
        return [[one._replace(score=abs(one.score)) for one in found] for found in results]

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
        """Reads the first rows that an expression finds, in the order of their keys.

        Args:
            name: Collection.
            expression: Empty: all.
            fields: What to read; the primary key comes with it.
            limit: 1..MOST_ROWS.
            seen: See as much as was written up to this timestamp; 0: all; None: what is at hand.
            timeout_s: Seconds.
        """
        # Lite sorts by key only for an iterator; of a server, the client would forget `seen` then.
        lite = (await self.capabilities()).lite
        kept: Mapping[str, Any] = {"iterator": "True"} if lite else _consistency(seen)
        rows: list[Mapping[str, Any]] = await self._ask(
            lambda client: client.query(
                name,
                filter=expression,
                output_fields=list(fields),
                limit=limit,
                retry_times=0,
                **kept,
            ),
            timeout_s,
        )
        return list(rows)

    async def close(self) -> None:
        """Closes the connections."""
        await self._connection.close()

    async def _search(
        self,
        name: str,
        data: list[Any],
        field: str,
        k: int,
        expression: str,
        fields: Sequence[str],
        params: Mapping[str, int],
        seen: int | None,
        timeout_s: float | None,
    ) -> list[list[MilvusHit]]:
        results = await self._ask(
            lambda client: client.search(
                name,
                data=data,
                anns_field=field,
                filter=expression,
                limit=k,
                output_fields=list(fields),
                search_params={"params": dict(params)},
                retry_times=0,
                **_consistency(seen),
            ),
            timeout_s,
        )
        return [_found(hits) for hits in results]


def _consistency(seen: int | None) -> dict[str, Any]:
    if seen is None:
        return {"consistency_level": "Eventually"}
    if seen == 0:
        return {"consistency_level": "Strong"}
    return {"consistency_level": "Customized", "guarantee_timestamp": seen}


def _found(hits: Any) -> list[MilvusHit]:
    # A server of 2.3 does not say what the primary key is called.
    key = "key" if hits and "key" in hits[0] else "id"
    return [MilvusHit(hit[key], hit["distance"], hit["entity"]) for hit in hits]


def _numbers(version: str) -> tuple[int, int]:
    """Returns major and minor number of a server's version; (0, 0): it has none."""
    numbers = version.lstrip("v").split("-")[0].split(".")
    with contextlib.suppress(ValueError, IndexError):
        return int(numbers[0]), int(numbers[1])
    return 0, 0
