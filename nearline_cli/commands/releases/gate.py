"""`nearline gate` and `nearline snapshots gate`: whether a snapshot may go live, and its
thresholds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from nearline.store.snapshot import Store
from nearline.v1 import release_pb2
from nearline_cli.compose import release_gate
from nearline_cli.terminal import options, output
from nearline_cli.terminal.option_groups import add_command

app = typer.Typer(no_args_is_help=True, help="Show and set the thresholds of the release gate.")


def _limit(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, show_default=False, metavar="X")
    return option


class ThresholdOptions(NamedTuple):
    """Options of the thresholds; None leaves a threshold unchanged."""

    min_recall: Annotated[float | None, _limit("Minimum recall@10 against an exact scan.")] = None
    max_ndcg_loss: Annotated[float | None, _limit("Maximum loss of nDCG@10 on judged queries.")] = (
        None
    )
    min_ndcg: Annotated[float | None, _limit("Minimum nDCG@10 on judged queries.")] = None
    min_overlap: Annotated[
        float | None, _limit("Minimum share of the top ten in common with the live snapshot.")
    ] = None
    max_missing: Annotated[float | None, _limit("Maximum share of documents that are missing.")] = (
        None
    )
    max_moved: Annotated[
        float | None, _limit("Maximum share of documents whose vector changed.")
    ] = None
    max_latency_ratio: Annotated[
        float | None, _limit("Maximum p99 latency, relative to the live snapshot.")
    ] = None
    max_recommend_loss: Annotated[
        float | None, _limit("Maximum loss of NDCG@10 of recommendations.")
    ] = None


def gate(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="Snapshot id.")],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    *,
    request: release_gate.GateRequest,
    as_json: output.JsonFlag = False,
) -> None:
    """Judge a snapshot as promote would, without changing anything.

    For example: nearline snapshots gate 20261125T004218Z-1f3a9c

    Exits with 1 if the gate refuses the snapshot.
    """
    opened = Store.open(store)
    report, path = release_gate.judge_snapshot(opened, collection, snapshot_id, request)
    if as_json:
        output.print_json({**report.record(), "report": path})
    else:
        release_gate.print_gate_report(report, path, opened)
    if not report.passed:
        raise release_gate.gate_failure(report, path)


@app.command()
def show(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the current thresholds and the stored reports."""
    from dataclasses import asdict

    from index_builder.releases.gate_report import report_names
    from index_builder.releases.thresholds import current_thresholds, parse_limits

    opened = Store.open(store)
    record = current_thresholds(opened, collection)
    limits = asdict(parse_limits(record))
    reports = report_names(opened, collection)
    about: dict[str, object] = {
        "number": record.number,
        "who": record.who,
        "why": record.why,
        "created": record.create_time.ToJsonString() if record.number else "",
        "judgements": record.judgements_sha256,
    }
    if as_json:
        output.print_json({"collection": collection, **about, **limits, "reports": reports})
        return
    rows = [
        (name, "off" if value < 0 else value, "set" if record.HasField(name) else "default")
        for name, value in limits.items()
    ]
    output.print_table(("threshold", "value", ""), rows)
    output.print_table(
        ("field", "value"), [*about.items(), *(("report", name) for name in reports)]
    )


def set_limits(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    *,
    limits: ThresholdOptions,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder in BEIR layout whose judged queries are stored for the gate.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Judgements to use: qrels/SPLIT.tsv.")
    ] = "test",
    why: options.WhyOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Set thresholds; the others stay unchanged. A negative number disables a check.

    For example: nearline gate set --min-recall 0.95 --why "agreed with search team"
    """
    from index_builder.evaluation import retrieval_metrics
    from index_builder.releases import thresholds
    from index_builder.releases.judgements import keep_judgements
    from retrieval.snapshots.aliases import operator_name

    opened = Store.open(store)
    record = release_pb2.GateThresholds()
    record.CopyFrom(thresholds.current_thresholds(opened, collection))
    for name, value in limits._asdict().items():
        if value is not None:
            setattr(record, name, value)
    if labels is not None:
        found = retrieval_metrics.load(labels, split)
        record.judgements_sha256 = keep_judgements(opened, collection, found)
    record.who, record.why = operator_name(), why
    stored = thresholds.set_thresholds(opened, collection, record)
    output.print_result(
        {"collection": collection, "number": stored.number, "why": stored.why},
        f"set thresholds of {collection!r} (record {stored.number})",
        as_json=as_json,
    )


add_command(app, set_limits, "set")
