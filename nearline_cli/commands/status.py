"""`nearline status`: shows running services and what they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from nearline.clients import AdminClient, EmbeddingClient, IngestClient
from nearline.contract import QueueState
from nearline.errors import NearlineError, NotReady
from nearline.v1 import admin_pb2
from nearline_cli.terminal import options, output


def status(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the embedding service; empty: skip it. \\[default: the port after the "
            "router's, as in nearline up]",
        ),
    ] = None,
    ingest: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the ingest service; empty: skip it. \\[default: five ports after the "
            "router's, if a service is there]",
        ),
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the router, the embedding service, the ingest queue and every collection."""
    host, _, port = address.rpartition(":")
    if embedding is None:
        embedding = f"{host}:{int(port) + 1}" if port.isdigit() else ""
    default = f"{host}:{int(port) + 5}" if port.isdigit() else ""
    services, collections = asyncio.run(_ask(address, embedding))
    services += asyncio.run(_ask_queue(default if ingest is None else ingest, ingest is not None))
    if as_json:
        for record in (*services, *collections):
            output.print_json(record)
    else:
        columns: tuple[str, ...] = ("service", "address", "state", "about")
        output.print_table(columns, [[record[name] for name in columns] for record in services])
        if collections:
            columns = (
                "collection",
                "epoch",
                "snapshot",
                "documents",
                "chunks",
                "shards",
                "replicas",
                "canary",
                "next",
            )
            output.print_table(
                columns, [[record[name] for name in columns] for record in collections]
            )
        _print_live(collections)
    if away := [f"{r['service']} ({r['address']})" for r in services if r["state"] != "serving"]:
        raise NotReady(f"not serving: {', '.join(away)}; start it: nearline up")


async def _ask(
    address: str, embedding: str
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    services, collections = [], []
    async with AdminClient(address) as admin:
        try:
            reply = await admin.serving_status()
        except NearlineError as error:
            services.append(_service("retrieval", address, "away", error.message))
        else:
            version = f"nearline {reply.nearline_version}"
            services.append(_service("retrieval", address, "serving", version))
            collections = [_collection(found) for found in reply.collections]
    if embedding:
        async with EmbeddingClient(embedding) as client:
            try:
                info = await client.info()
            except NearlineError as error:
                services.append(_service("embedding", embedding, "away", error.message))
            else:
                about = f"{info.model}, {info.dim} dims, {info.backend}"
                services.append(_service("embedding", embedding, "serving", about))
    return services, collections


async def _ask_queue(address: str, required: bool) -> list[dict[str, object]]:
    """Asks the ingest service; unless it is required, it may be absent."""
    if not address:
        return []
    async with IngestClient(address) as client:
        try:
            queue = await client.queue()
        except NearlineError as error:
            return [_service("ingest", address, "away", error.message)] if required else []
    return [_service("ingest", address, "serving", _about(queue)) | {"queue": _queue(queue)}]


def _about(queue: QueueState) -> str:
    count = len(queue.workers)
    workers = (
        f"{count} worker{'' if count == 1 else 's'} at {queue.documents_per_s:.1f} documents/s"
    )
    letters = f", {queue.dead} dead letters: nearline jobs dead" if queue.dead else ""
    oldest = f", the oldest for {_age(queue.oldest_age_s)}" if queue.waiting else ""
    return f"{queue.lag} to do{oldest}; {workers}{letters}"


def _queue(queue: QueueState) -> dict[str, object]:
    return {
        "lag": queue.lag,
        "waiting": queue.waiting,
        "in_hand": queue.in_hand,
        "delayed": queue.delayed,
        "oldest_age_s": queue.oldest_age_s,
        "documents_per_s": queue.documents_per_s,
        "workers": len(queue.workers),
        "dead_letters": queue.dead,
        "bytes": queue.bytes,
    }


def _print_live(collections: Sequence[Mapping[str, object]]) -> None:
    """Shows the live changes of collections that have a change log."""
    columns = (
        "collection",
        "live chunks",
        "hidden",
        "behind",
        "oldest change",
        "archived",
        "not archived",
    )
    rows = []
    for record in collections:
        live = record["live"]
        if isinstance(live, dict):
            rows.append(
                (
                    record["collection"],
                    live["rows"],
                    live["hidden_rows"],
                    live["behind"],
                    _age(live["oldest_change_s"]),
                    _age(live["archive_s"]),
                    live["not_archived"],
                    live["problem"],
                )
            )
    if rows:
        output.print_table((*columns, "problem"), rows)


def _age(seconds: float | None) -> str:
    """Returns a readable age: 90.0 is "2 min"."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _live(found: admin_pb2.CollectionStatus) -> dict[str, object] | None:
    if not found.HasField("live"):
        return None
    live = found.live
    return {
        "log": live.log_id,
        "problem": live.problem,
        "rows": live.rows,
        "hidden_rows": live.hidden_rows,
        "behind": live.behind,
        "oldest_change_s": _seconds_since(live, "oldest_change_time"),
        "archive_s": _seconds_since(live, "archive_time"),
        "not_archived": live.not_archived,
    }


def _seconds_since(live: admin_pb2.LiveStatus, name: str) -> float | None:
    if not live.HasField(name):
        return None
    time: Timestamp = getattr(live, name)
    return max(0.0, (datetime.now(UTC) - time.ToDatetime(UTC)).total_seconds())


def _service(name: str, address: str, state: str, about: str) -> dict[str, object]:
    return {"service": name, "address": address, "state": state, "about": about}


def _collection(found: admin_pb2.CollectionStatus) -> dict[str, object]:
    return {
        "collection": found.collection,
        "epoch": found.epoch,
        "snapshot": found.snapshot_id,
        "fingerprint": found.fingerprint,
        "documents": found.documents,
        "chunks": found.chunks,
        "shards": f"{found.shards_ready}/{found.shards_total}",
        "replicas": " ".join(map(str, found.replicas_ready)),
        "canary": found.canary_snapshot_id,
        "next": _next(found),
        "live": _live(found),
    }


def _next(found: admin_pb2.CollectionStatus) -> str:
    """Returns the snapshot that the alias names if it is not served yet, else an empty string."""
    if found.newest_epoch <= found.epoch:
        return ""
    why = found.problem or "being loaded"
    return f"{found.newest_snapshot_id} (epoch {found.newest_epoch}): {why}"
