"""Shows what `nearline status` knows of collections and their live changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from nearline.v1 import admin_pb2
from nearline_cli.terminal import output


def collection_record(found: admin_pb2.CollectionStatus) -> dict[str, object]:
    """Returns a collection as `--json` prints it."""
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


def print_collections(collections: Sequence[Mapping[str, object]]) -> None:
    """Prints a table of collections, and one of the live changes of those with a change log."""
    if not collections:
        return
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
    rows = [[record[name] for name in columns] for record in collections]
    output.print_table(columns, rows, wrap=output.SENTENCE_WRAP)
    _print_live(collections)


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
                    output.format_age(live["oldest_change_s"]),
                    output.format_age(live["archive_s"]),
                    live["not_archived"],
                    live["problem"],
                )
            )
    if rows:
        output.print_table((*columns, "problem"), rows, wrap=output.SENTENCE_WRAP)


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


def _next(found: admin_pb2.CollectionStatus) -> str:
    """Returns the snapshot that the alias names if it is not served yet, else an empty string."""
    if found.newest_epoch <= found.epoch:
        return ""
    why = found.problem or "being loaded"
    return f"{found.newest_snapshot_id} (epoch {found.newest_epoch}): {why}"
