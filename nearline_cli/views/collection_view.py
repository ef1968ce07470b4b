"""Shows what `nearline status` knows of collections, their live changes and their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from nearline.counts import counted
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
        "training": _training(found),
    }


def print_collections(collections: Sequence[Mapping[str, object]]) -> None:
    """Prints tables of collections, of live changes, and of the models of users."""
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
    _print_trainings(collections)


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


def _print_trainings(collections: Sequence[Mapping[str, object]]) -> None:
    """Shows what the models of users know, where upkeep trains them."""
    rows = []
    for record in collections:
        training = record["training"]
        if isinstance(training, dict):
            newest = output.format_age(training["newest_s"])
            told = (training["recorded"], training["trained"], newest, training["next"])
            rows.append((record["collection"], *told))
    if rows:
        columns = ("collection", "interactions", "trained on", "newest", "next training")
        output.print_table(columns, rows, wrap=output.SENTENCE_WRAP)


def _training(found: admin_pb2.CollectionStatus) -> dict[str, object] | None:
    if not found.HasField("training"):
        return None
    training = found.training
    return {
        "recorded": training.recorded,
        "needed": training.needed,
        "trained": training.trained,
        "newest_s": _seconds_since(training, "newest_time"),
        "progress": training.progress,
        "problem": training.problem,
        "next": _next_training(training, found.canary_snapshot_id),
    }


def _next_training(training: admin_pb2.TrainingStatus, canary: str) -> str:
    """Returns what is trained now, why the last training failed, or what the next one needs."""
    if training.progress or training.problem:
        return training.progress or training.problem
    if canary:
        return f"after the trial of {canary}"
    if not training.needed:
        return "" if training.trained else "never: first_training is 0"
    missing = training.needed - training.recorded
    return f"needs {counted(missing, 'more interaction')}" if missing > 0 else "soon"


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


def _seconds_since(
    status: admin_pb2.LiveStatus | admin_pb2.TrainingStatus, name: str
) -> float | None:
    if not status.HasField(name):
        return None
    time: Timestamp = getattr(status, name)
    return max(0.0, (datetime.now(UTC) - time.ToDatetime(UTC)).total_seconds())


def _next(found: admin_pb2.CollectionStatus) -> str:
    """Returns the snapshot that the alias names if it is not served yet, else an empty string."""
    if found.newest_epoch <= found.epoch:
        return ""
    why = found.problem or "being loaded"
    return f"{found.newest_snapshot_id} (epoch {found.newest_epoch}): {why}"
