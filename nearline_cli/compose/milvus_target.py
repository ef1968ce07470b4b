"""A Milvus that commands write snapshots to: options, client and leftovers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.store.snapshot import Store

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.orphan_collections import ExportedCollection

MilvusUriOption = Annotated[
    str,
    typer.Option(
        "--milvus-uri",
        envvar="NEARLINE_RETRIEVAL_MILVUS_URI",
        metavar="URI",
        help="URI of Milvus: http://HOST:PORT, https://HOST:PORT, or a .db file for Milvus Lite.",
    ),
]
MilvusTokenOption = Annotated[
    str,
    typer.Option(
        "--milvus-token",
        envvar="NEARLINE_RETRIEVAL_MILVUS_TOKEN",
        metavar="TOKEN",
        help="Credentials for Milvus: USER:PASSWORD, or an API key.",
    ),
]


class MilvusIndex(StrEnum):
    """Index of the vectors in Milvus."""

    HNSW = "HNSW"
    FLAT = "FLAT"


async def list_strays(
    store: Store, collection: str, uri: str, token: str, removing: Collection[str]
) -> list[ExportedCollection]:
    """Returns the collections that pruning would drop from Milvus; see `plan_collection_prune`."""
    from retrieval.milvus.orphan_collections import plan_collection_prune

    async with open_milvus(uri, token) as client:
        return await plan_collection_prune(store, collection, client, removing=removing)


async def remove_strays(
    store: Store, collection: str, uri: str, token: str, planned: list[ExportedCollection]
) -> list[str]:
    """Drops collections from Milvus; see `drop_collections`."""
    from retrieval.milvus.orphan_collections import drop_collections

    async with open_milvus(uri, token) as client:
        return await drop_collections(store, collection, client, planned)


@contextlib.asynccontextmanager
async def open_milvus(uri: str, token: str) -> AsyncIterator[MilvusClient]:
    from retrieval.milvus.open_client import open_client

    client = open_client(uri, token)
    try:
        yield client
    finally:
        await client.close()
