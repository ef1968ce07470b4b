"""`nearline snapshots export`: a snapshot into Milvus, and what of it stays there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.cli import options, output
from nearline.cli.building import progress
from nearline.errors import InvalidRequest
from nearline.snapshot import Store

if TYPE_CHECKING:
    from index_builder.milvus_writer import Exported
    from index_builder.progress import Progress
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.pruning import Stray

CURRENT = "current"
UriOption = Annotated[
    str,
    typer.Option(
        "--milvus-uri",
        envvar="NEARLINE_RETRIEVAL_MILVUS_URI",
        metavar="URI",
        help="A Milvus: http://HOST:PORT, https://HOST:PORT, or a file that ends in .db for Milvus "
        "Lite.",
    ),
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--milvus-token",
        envvar="NEARLINE_RETRIEVAL_MILVUS_TOKEN",
        metavar="TOKEN",
        help="Says who asks the Milvus: USER:PASSWORD, or an API key.",
    ),
]


class Kind(StrEnum):
    """Where a snapshot can be written."""

    MILVUS = "milvus"


class Index(StrEnum):
    """How Milvus searches."""

    HNSW = "HNSW"
    FLAT = "FLAT"


def export(
    snapshot_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Snapshot id; left out, or current: that one.")
    ] = CURRENT,
    to: Annotated[Kind, typer.Option("--to", help="Where to.")] = Kind.MILVUS,
    milvus_uri: UriOption = "",
    milvus_token: TokenOption = "",
    index: Annotated[
        Index,
        typer.Option(
            "--index", help="Of its vectors: HNSW, a graph, or FLAT, which compares each of them."
        ),
    ] = Index.HNSW,
    partition_by: Annotated[
        str,
        typer.Option(
            "--partition-by",
            metavar="ATTRIBUTE",
            help="Cut it up by an attribute with one text for each document, such as the tenant: "
            "a search whose filter names it looks nowhere else. Milvus 2.4 or newer.",
        ),
    ] = "",
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Write it anew where it is there already. Who serves it has nothing to serve "
            "meanwhile, and live changes in it are read from the change log again.",
        ),
    ] = False,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Write a snapshot into Milvus, for routers with --backend milvus.

    Nothing serves it before all of it is there, indexed, counted and tried. What is there already
    stays as it is; what an export that was interrupted has left is written anew.
    """
    opened = Store.open(store)
    if not milvus_uri:
        raise InvalidRequest(f"--to {to} needs --milvus-uri, such as http://127.0.0.1:19530")
    chosen = opened.alias_in_force(collection).current if snapshot_id == CURRENT else snapshot_id
    with progress(as_json) as told:
        done = asyncio.run(
            _exported(
                opened,
                collection,
                chosen,
                milvus_uri,
                milvus_token,
                index,
                partition_by,
                again,
                told,
            )
        )
    if as_json:
        output.print_json(
            {
                "collection": collection,
                "snapshot": chosen,
                "milvus_collection": done.name,
                "documents": done.documents,
                "chunks": done.chunks,
                "index": done.index,
                "words": done.words,
                "recall": done.recall,
                "seconds": round(done.seconds, 3),
                "written": done.done,
            }
        )
        return
    if not done.done:
        output.console().print(
            f"{chosen} is in {milvus_uri} already, as {done.name}; --again writes it anew"
        )
        return
    recall = "" if done.recall is None else f", recall@10 {done.recall:.4f}"
    words = "" if done.words else "; without words, which need Milvus 2.5 and a snapshot with them"
    output.console().print(
        f"{chosen}: {done.documents:,} documents, {done.chunks:,} chunks in {done.name}, index "
        f"{done.index}{recall} ({done.seconds:.1f} s){words}"
    )


class Target(NamedTuple):
    """A Milvus, and how it is to search."""

    uri: str
    token: str
    kind: Index = Index.HNSW

    @property
    def router(self) -> list[str]:
        """The arguments of a router before it."""
        words = ["--backend", "milvus", "--milvus-uri", self.uri]
        return [*words, "--milvus-token", self.token] if self.token else words


class Lent(NamedTuple):
    """A snapshot in a Milvus for a while. name: Of the collection. version: Of the Milvus."""

    name: str
    version: str


@contextlib.asynccontextmanager
async def lent(folder: Path, collection: str, target: Target) -> AsyncIterator[Lent]:
    """Has the current snapshot of a collection in a Milvus for the length of the block."""
    store = Store(folder)
    snapshot_id = store.alias_in_force(collection).current
    async with _client(target.uri, target.token) as client:
        from index_builder.milvus_writer import export
        from retrieval.milvus.states import States

        done = await export(store, collection, snapshot_id, client, index=target.kind)
        try:
            yield Lent(done.name, (await client.capabilities()).version)
        finally:
            await States(client).remove(done.name)
            await client.drop(done.name)


async def strays(
    store: Store, collection: str, uri: str, token: str, going: Collection[str]
) -> list[Stray]:
    """Tells what becomes of the collections of a Milvus; see `plan_prune`."""
    from retrieval.milvus.pruning import plan_prune

    async with _client(uri, token) as client:
        return await plan_prune(store, collection, client, going=going)


async def remove_strays(
    store: Store, collection: str, uri: str, token: str, planned: list[Stray]
) -> list[str]:
    """Drops collections of a Milvus; see `retrieval.milvus.pruning.prune`."""
    from retrieval.milvus.pruning import prune

    async with _client(uri, token) as client:
        return await prune(store, collection, client, planned)


@contextlib.asynccontextmanager
async def _client(uri: str, token: str) -> AsyncIterator[MilvusClient]:
    from retrieval.milvus.opening import open_client

    client = open_client(uri, token)
    try:
        yield client
    finally:
        await client.close()


async def _exported(
    store: Store,
    collection: str,
    snapshot_id: str,
    uri: str,
    token: str,
    index: Index,
    partition_by: str,
    again: bool,
    told: Progress,
) -> Exported:
    async with _client(uri, token) as client:
        from index_builder.milvus_writer import export

        return await export(
            store,
            collection,
            snapshot_id,
            client,
            index=index,
            partition_by=partition_by,
            again=again,
            progress=told,
        )
