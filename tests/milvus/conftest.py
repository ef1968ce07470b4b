"""Milvus fixtures: servers, clients and a collection of attributes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nearline.times import to_us
from tests.milvus.servers import Server

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient

TIMEOUT_S = 30.0


class AttributeRows:
    """Rows of attributes in a collection of their own; each `put` takes the place of the last."""

    def __init__(self, pymilvus: Any, uri: str) -> None:
        self._client = pymilvus.MilvusClient(uri, timeout=TIMEOUT_S)
        self._name = f"nearline_test_{os.getpid()}"
        self._run = 0
        kinds = pymilvus.DataType
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("key", kinds.VARCHAR, max_length=64, is_primary=True)
        schema.add_field("chunk", kinds.INT64)
        schema.add_field("version", kinds.INT64)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)
        schema.add_field("attributes", kinds.JSON)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            self._name,
            schema=schema,
            index_params=index,
            consistency_level="Strong",
            timeout=TIMEOUT_S,
        )

    def put(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replaces the rows."""
        if self._run:
            self._client.delete(self._name, filter="chunk >= 0", timeout=TIMEOUT_S)
        self._run += 1
        self._client.insert(
            self._name,
            [
                {
                    "key": f"{self._run}#{at}",
                    "chunk": at,
                    "version": self._run,
                    "vector": [0.0, 1.0],
                    "attributes": stored(row),
                }
                for at, row in enumerate(rows)
            ],
            timeout=TIMEOUT_S,
        )

    def matching(self, expression: str) -> list[int]:
        """Returns the numbers of the rows that an expression finds, ascending."""
        found = self._client.query(
            self._name,
            filter=f"version == {self._run} and ({expression})",
            output_fields=["chunk"],
            timeout=TIMEOUT_S,
        )
        return sorted(row["chunk"] for row in found)

    def close(self) -> None:
        """Drops the collection."""
        self._client.drop_collection(self._name, timeout=TIMEOUT_S)
        self._client.close()


def stored(row: Mapping[str, object]) -> dict[str, object]:
    """Returns attributes as stored in Milvus."""
    return {
        name: [_one(each) for each in value] if isinstance(value, list) else _one(value)
        for name, value in row.items()
    }


def _one(value: object) -> object:
    return to_us(value) if isinstance(value, datetime) else value


@pytest.fixture(params=["lite_server", "standalone_server"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Returns a server of each kind that a test may kill.

    They are those of the session: two of 2.3.5 find no room in one network.
    """
    server: Server = request.getfixturevalue(request.param)
    yield server
    if not server.runs:
        server.start()


@pytest_asyncio.fixture
async def milvus(milvus_uri: str) -> AsyncIterator[MilvusClient]:
    """Returns a client of each Milvus in turn."""
    from retrieval.milvus.client import MilvusClient

    client = MilvusClient(milvus_uri)
    yield client
    await client.close()


@pytest.fixture(scope="session")
def attribute_rows(milvus_uri: str) -> Iterator[AttributeRows]:
    """Returns a collection of rows of attributes in each Milvus in turn."""
    import pymilvus

    rows = AttributeRows(pymilvus, milvus_uri)
    yield rows
    rows.close()
