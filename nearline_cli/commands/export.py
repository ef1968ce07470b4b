"""`nearline snapshots export`: writes a snapshot into Milvus."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest
from nearline.snapshot import Store
from nearline_cli.compose import milvus_target
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.execution.progress import Progress
    from index_builder.indexes.milvus_writer import MilvusExport

CURRENT = "current"


class ExportTarget(StrEnum):
    """Where a snapshot can be written."""

    MILVUS = "milvus"


def export(
    snapshot_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Snapshot id; left out, or current: that one.")
    ] = CURRENT,
    to: Annotated[ExportTarget, typer.Option("--to", help="Where to.")] = ExportTarget.MILVUS,
    milvus_uri: milvus_target.MilvusUriOption = "",
    milvus_token: milvus_target.MilvusTokenOption = "",
    index: Annotated[
        milvus_target.MilvusIndex,
        typer.Option(
            "--index", help="Of its vectors: HNSW, a graph, or FLAT, which compares each of them."
        ),
    ] = milvus_target.MilvusIndex.HNSW,
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
            help="Write it again where it is there already. Who serves it has nothing to serve "
            "meanwhile, and live changes in it are read from the change log again.",
        ),
    ] = False,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Write a snapshot into Milvus, for routers with --backend milvus.

    Nothing serves it before all of it is there, indexed, counted and tried. What is there already
    stays as it is; what an export that was interrupted has left is written again.
    """
    opened = Store.open(store)
    if not milvus_uri:
        raise InvalidRequest(f"--to {to} needs --milvus-uri, such as http://127.0.0.1:19530")
    chosen = opened.alias_in_force(collection).current if snapshot_id == CURRENT else snapshot_id
    with open_progress(as_json) as told:
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
            f"{chosen} is in {milvus_uri} already, as {done.name}; --again writes it again"
        )
        return
    recall = "" if done.recall is None else f", recall@10 {done.recall:.4f}"
    words = "" if done.words else "; without words, which need Milvus 2.5 and a snapshot with them"
    output.console().print(
        f"{chosen}: {done.documents:,} documents, {done.chunks:,} chunks in {done.name}, index "
        f"{done.index}{recall} ({done.seconds:.1f} s){words}"
    )


async def _exported(
    store: Store,
    collection: str,
    snapshot_id: str,
    uri: str,
    token: str,
    index: milvus_target.MilvusIndex,
    partition_by: str,
    again: bool,
    told: Progress,
) -> MilvusExport:
    async with milvus_target.open_milvus(uri, token) as client:
        from index_builder.indexes.milvus_writer import export

        return await export(
            store,
            collection,
            snapshot_id,
            client,
            index=index,
            partition_by=partition_by,
            overwrite=again,
            progress=told,
        )
