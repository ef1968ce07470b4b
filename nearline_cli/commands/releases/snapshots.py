"""`nearline snapshots`: lists, shows and verifies the snapshots of a store."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from nearline.counts import counted
from nearline.errors import NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.store.registry import describe_ref
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from nearline_cli.commands.releases import export, gate, promote
from nearline_cli.terminal import options, output
from nearline_cli.terminal.option_groups import add_command

app = typer.Typer(no_args_is_help=True, help="Show, verify, promote and prune snapshots.")
add_command(app, promote.promote)
add_command(app, gate.gate)
app.command()(promote.rollback)
app.command()(promote.prune)
app.command()(export.export)

# What the manifest of a snapshot says, in a list of snapshots.
_FIELDS = (
    "documents",
    "chunks",
    "shards",
    "index",
    "dim",
    "fingerprint",
    "models",
    "created",
    "bytes",
)
_IdArgument = Annotated[
    str, typer.Argument(metavar="[ID]", help="Snapshot id. \\[default: the current one]")
]


@app.command("list")
def list_snapshots(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.OnlyCollectionOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """List the snapshots of every collection, newest first."""
    opened = Store.open(store)
    records = [
        _record(opened, name, snapshot_id, in_force)
        for name, in_force in _collections(opened, collection)
        for snapshot_id in opened.snapshot_ids(name)
    ]
    if as_json:
        for record in records:
            output.print_json(record)
        return
    columns = ("collection", "snapshot", "alias", "documents", "chunks", "shards", "index", "bytes")
    output.print_table(
        columns,
        [
            [
                *(record[name] for name in columns[:-1]),
                output.format_bytes(size) if isinstance(size := record["bytes"], int) else None,
            ]
            for record in records
        ],
    )
    for record in records:
        if "problem" in record:
            output.print_note(f"{record['snapshot']} is damaged: {record['problem']}")


@app.command()
def show(
    snapshot_id: _IdArgument = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the origin and contents of a snapshot."""
    opened = Store.open(store)
    record = opened.alias_in_force(collection)
    manifest = opened.manifest(collection, snapshot_id or record.current)
    if as_json:
        from google.protobuf import json_format

        output.print_json(json_format.MessageToDict(manifest, preserving_proto_field_name=True))
        return
    output.print_table(("field", "value"), _described(manifest, record))
    output.print_table(
        ("shard", "documents", "chunks"),
        [(shard.shard, shard.documents, shard.chunks) for shard in manifest.shards],
    )


@app.command()
def verify(
    snapshot_id: _IdArgument = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Verify every file of a snapshot against its manifest."""
    opened = Store.open(store)
    chosen = snapshot_id or opened.alias_in_force(collection).current
    start = time.perf_counter()
    checked = opened.verify(collection, chosen)
    seconds = time.perf_counter() - start
    files = len(opened.manifest(collection, chosen).files)
    output.print_result(
        {
            "collection": collection,
            "snapshot": chosen,
            "ok": True,
            "files": files,
            "bytes": checked,
            "seconds": round(seconds, 3),
        },
        f"{chosen}: {files} files, {output.format_bytes(checked)} match the manifest "
        f"({seconds:.1f} s)",
        as_json=as_json,
    )


@app.command()
def proposals(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.OnlyCollectionOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """List the snapshots that upkeep proposes, newest first.

    An open one passed the release gate. Try it on a share of the requests (nearline rollout start
    ID), or serve it at once (nearline snapshots promote ID).
    """
    from retrieval.snapshots.proposals import read_proposals

    opened = Store.open(store)
    rows = [
        {"collection": name, **asdict(one), "proposed": _written(one.time_s)}
        for name, _ in _collections(opened, collection)
        for one in read_proposals(opened, name)
    ]
    if as_json:
        for row in rows:
            output.print_json(row)
        return
    columns = ("collection", "snapshot_id", "state", "proposed", "reason", "why")
    if rows:
        output.print_table(columns, [[row[name] for name in columns] for row in rows])
    else:
        output.print_note("upkeep proposes no snapshot; see docs/guides/releases.md, Proposals")


def _written(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def _collections(store: Store, wanted: str) -> list[tuple[str, snapshot_pb2.AliasRecord]]:
    names = [wanted] if wanted else store.collections()
    if not names:
        raise NotFound(
            f"store {store.url} has no collection; name another one (--store, NEARLINE_STORE), or "
            f"build one: nearline build --corpus FILE --store {store.url}"
        )
    return [(name, store.alias_in_force(name)) for name in names]


def _record(
    store: Store, collection: str, snapshot_id: str, in_force: snapshot_pb2.AliasRecord
) -> dict[str, object]:
    first: dict[str, object] = {
        "collection": collection,
        "snapshot": snapshot_id,
        "alias": _alias(snapshot_id, in_force),
    }
    try:
        manifest = store.manifest(collection, snapshot_id)
    except (SnapshotCorrupt, SnapshotMismatch) as error:
        # The others are listed all the same.
        return first | dict.fromkeys(_FIELDS) | {"problem": error.message}
    values = {
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "shards": len(manifest.shards),
        "index": manifest.index_factory,
        "dim": manifest.dim,
        "fingerprint": manifest.embedder.fingerprint,
        "models": [describe_ref(model) for model in manifest.models],
        "created": manifest.create_time.ToJsonString(),
        "bytes": sum(entry.bytes for entry in manifest.files),
    }
    return first | values


def _alias(snapshot_id: str, in_force: snapshot_pb2.AliasRecord) -> str:
    return {in_force.canary: "canary", in_force.current: "current"}.get(snapshot_id, "")


def _described(
    manifest: snapshot_pb2.Manifest, record: snapshot_pb2.AliasRecord
) -> list[tuple[str, object]]:
    alias = _alias(manifest.snapshot_id, record)
    rows: list[tuple[str, object]] = [
        ("collection", manifest.collection),
        ("snapshot", manifest.snapshot_id),
        ("alias", f"{alias} since epoch {record.epoch}" if alias else ""),
        ("created", manifest.create_time.ToJsonString()),
        ("nearline, faiss", f"{manifest.nearline_version}, {manifest.faiss_version}"),
        ("model", manifest.embedder.model or "none: built from your own vectors"),
        ("fingerprint", manifest.embedder.fingerprint),
        ("models", ", ".join(describe_ref(model) for model in manifest.models)),
        ("dim, metric", f"{manifest.dim}, {manifest.metric}"),
        ("index", manifest.index_factory),
        ("documents, chunks", f"{manifest.documents}, {manifest.chunks}"),
        ("size", output.format_bytes(sum(entry.bytes for entry in manifest.files))),
    ]
    if manifest.quality.queries:
        quality = manifest.quality
        rows.append(
            ("recall@10", f"{quality.recall_at_10:.4f} over {quality.queries} golden queries")
        )
    for source in manifest.sources:
        bad = counted(source.bad_rows, "malformed row")
        left_out = f", {bad} left out" if source.bad_rows else ""
        rows.append(("source", f"{source.uri}: {counted(source.documents, 'document')}{left_out}"))
    return rows
