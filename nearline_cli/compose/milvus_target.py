"""A Milvus that commands write snapshots to: options, client and leftovers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.store.snapshot import Store

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient

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


async def drop_removed(store: Store, collection: str, uri: str, token: str) -> list[str]:
    """Drops the Milvus collections of removed snapshots; see `collection_state.drop_removed`."""
    async with open_milvus(uri, token) as client:
        from retrieval.milvus.collection_state import drop_removed

        return await drop_removed(store, collection, client)


@contextlib.asynccontextmanager
async def open_milvus(uri: str, token: str) -> AsyncIterator[MilvusClient]:
    from retrieval.milvus.open_client import open_client

    client = open_client(uri, token)
    try:
        yield client
    finally:
        await client.close()
