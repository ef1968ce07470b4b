"""`nearline snapshots export`: writes a snapshot into Milvus."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline_cli.compose import milvus_target
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.execution.progress import Progress
    from index_builder.indexes.milvus_writer import MilvusExport

CURRENT = "current"


class ExportTarget(StrEnum):
    """Target of an export."""

    MILVUS = "milvus"


def export(
    snapshot_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Snapshot id. \\[default: the current one]")
    ] = CURRENT,
    to: Annotated[
        ExportTarget, typer.Option("--to", help="Target of the export.")
    ] = ExportTarget.MILVUS,
    milvus_uri: milvus_target.MilvusUriOption = "",
    milvus_token: milvus_target.MilvusTokenOption = "",
    index: Annotated[
        milvus_target.MilvusIndex,
        typer.Option(
            "--index", help="Index of the vectors: HNSW, a graph, or FLAT, an exact scan."
        ),
    ] = milvus_target.MilvusIndex.HNSW,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Write the snapshot again if it exists already. Meanwhile, routers that serve it "
            "cannot answer; afterwards, they read its live changes from the change log again.",
        ),
    ] = False,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Write a snapshot into Milvus, for routers with --backend milvus.

    For example: nearline snapshots export --milvus-uri http://127.0.0.1:19530

    The export is served only once it is complete, indexed, counted and tested. A complete export
    stays unchanged; an interrupted one is written again.
    """
    opened = Store.open(store)
    if not milvus_uri:
        raise InvalidRequest(f"--to {to} needs --milvus-uri, such as http://127.0.0.1:19530")
    chosen = opened.alias_in_force(collection).current if snapshot_id == CURRENT else snapshot_id
    with open_progress(as_json) as progress:
        done = asyncio.run(
            _export(
                opened,
                collection,
                chosen,
                milvus_uri,
                milvus_token,
                index,
                again,
                progress,
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
            f"{chosen} is already in {milvus_uri} as {done.name}; use --again to write it again"
        )
        return
    recall = "" if done.recall is None else f", recall@10 {done.recall:.4f}"
    words = "" if done.words else "; no words: they need Milvus 2.5 and a snapshot with words"
    output.console().print(
        f"{chosen}: {counted(done.documents, 'document')}, {counted(done.chunks, 'chunk')} in "
        f"{done.name}, index "
        f"{done.index}{recall} ({done.seconds:.1f} s){words}"
    )


async def _export(
    store: Store,
    collection: str,
    snapshot_id: str,
    uri: str,
    token: str,
    index: milvus_target.MilvusIndex,
    again: bool,
    progress: Progress,
) -> MilvusExport:
    async with milvus_target.open_milvus(uri, token) as client:
        from index_builder.indexes.milvus_writer import export

        return await export(
            store,
            collection,
            snapshot_id,
            client,
            index=index,
            overwrite=again,
            progress=progress,
        )
