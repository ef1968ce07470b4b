"""What commands share that ask the release gate: options, the asking, and how it is told."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import GateFailed, InvalidRequest
from nearline.snapshot import Store
from nearline.v1 import release_pb2
from nearline_cli.terminal import output

if TYPE_CHECKING:
    from index_builder.interactions.records import Interactions
    from index_builder.releases.gate_report import GateReport
    from nearline.contract import Embedder
    from nearline.v1 import snapshot_pb2

NOT_JUDGED = "not judged"
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Go on although the gate refuses it; --why is needed, and recorded."
    ),
]
ForcePromoteOption = Annotated[
    str,
    typer.Option(
        "--force-promote",
        metavar="REASON",
        help="Serve the snapshot although the release gate refuses it; the reason is recorded.",
    ),
]
EmbeddingOption = Annotated[
    str,
    typer.Option(
        "--embedding",
        metavar="HOST:PORT",
        help="Embedding service for texts of the gate; with commas, several. \\[default: what "
        "needs one is skipped]",
    ),
]
ModelChangeOption = Annotated[
    bool,
    typer.Option(
        "--allow-model-change", help="Another embedder is wanted, and the routers have it."
    ),
]
InteractionsOption = Annotated[
    Path | None,
    typer.Option(
        "--interactions",
        metavar="FILE",
        help="What users did after the snapshot learned, to judge its lists by, with columns user, "
        "item and time: .csv, .csv.gz, .tsv or .parquet. \\[default: what --redis has]",
    ),
]
PoliciesOption = Annotated[
    Path | None,
    typer.Option(
        "--policies", metavar="FILE", help="Policies of the surfaces, as the routers have them."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """What the gate is told; see the options above. redis: Holds the change log and what users did;
    empty: neither is looked at.
    """

    embedding: str = ""
    allow_model_change: bool = False
    interactions: Path | None = None
    policies: Path | None = None
    redis: str = ""


def check_force_reason(force: bool, why: str) -> None:
    """Raises InvalidRequest where something is forced without a reason."""
    if force and not why.strip():
        raise InvalidRequest(
            "--force goes past the release gate, and the record has to say why; add --why REASON",
            field="why",
        )


def judge_snapshot(
    store: Store, collection: str, snapshot_id: str, asked: GateRequest
) -> tuple[GateReport, str]:
    """Asks the gate, beside what is live now, and keeps its report.

    Returns: The report, and its path in the store.
    """
    from index_builder.releases.build_gate import current_snapshot_id
    from index_builder.releases.gate import GateOptions, judge
    from index_builder.releases.report_store import keep_report
    from nearline.clients import EmbeddingClient
    from nearline_cli.inputs.interactions import InteractionOptions
    from retrieval.recommend.policy_file import read_policies
    from retrieval.shards.topology import check_address

    manifest = store.manifest(collection, snapshot_id)
    later: Interactions | None = None
    if asked.interactions is not None:
        later = InteractionOptions().load(asked.interactions).interactions
    policies = read_policies(asked.policies) if asked.policies else None
    addresses = [one.strip() for one in asked.embedding.split(",") if one.strip()]
    for one in addresses:
        check_address(one, "--embedding")

    async def run() -> GateReport:
        async with contextlib.AsyncExitStack() as stack:
            embedders: dict[str, Embedder] = {
                one: await stack.enter_async_context(EmbeddingClient(one)) for one in addresses
            }
            found = later
            if asked.redis:
                found = await _recorded(store, collection, asked.redis, manifest, later)
            options = GateOptions(
                embedders=embedders,
                allow_model_change=asked.allow_model_change,
                later=found,
                policies=policies,
            )
            return await judge(
                store, collection, snapshot_id, current_snapshot_id(store, collection), options
            )

    report = asyncio.run(run())
    return report, keep_report(store, report)


def require_gate_pass(
    store: Store,
    collection: str,
    snapshot_id: str,
    asked: GateRequest,
    *,
    forced_because: str,
    elsewhere: str,
    quiet: bool,
) -> release_pb2.GateVerdict:
    """Asks the gate before an alias record is made; shows what it found.

    Args:
        forced_because: Why the snapshot goes live whatever it says; empty: then it does not.
        elsewhere: A router that is asked to promote; empty: none is, the store is changed here.
        quiet: Print nothing.
    Returns: The verdict, for the record.
    Raises: GateFailed: it is refused, and nothing forces it. InvalidRequest: a router is asked, and
        this store is not its store.
    """
    if elsewhere and snapshot_id not in store.snapshot_ids(collection):
        if forced_because:
            return release_pb2.GateVerdict(failed=[NOT_JUDGED], forced_because=forced_because)
        raise InvalidRequest(
            f"the release gate judges here, and {store.url} has no snapshot {snapshot_id}; name "
            f"the store of {elsewhere} with --store, or go past it with --force --why REASON",
            field="store",
        )
    report, path = judge_snapshot(store, collection, snapshot_id, asked)
    if not quiet:
        print_gate_report(report, path, store)
    if not (report.passed or forced_because):
        raise gate_failure(report, path)
    return report.verdict(path, forced_because)


async def _recorded(
    store: Store,
    collection: str,
    redis: str,
    manifest: snapshot_pb2.Manifest,
    rows: Interactions | None,
) -> Interactions | None:
    """Adds what users did as a running service recorded it; archives deletions, to know them."""
    from index_builder.interactions.merge import NO_INTERACTIONS
    from index_builder.interactions.recorded_interactions import add_recorded
    from nearline_cli.compose.change_log import open_change_log
    from retrieval.changelog.archive import archive_changes

    if store.log_in_force(collection) is None:
        return rows
    async with open_change_log(store, collection, redis) as log:
        await archive_changes(store, log)
        logged = log.user_states().logged(collection)
        weights = manifest.behaviour.kind_weights
        joined = await add_recorded(NO_INTERACTIONS if rows is None else rows, logged, weights)
    return joined.interactions if len(joined.interactions.user) else rows


def print_gate_report(report: GateReport, path: str, store: Store) -> None:
    """Prints what the gate found, and where the page is."""
    output.print_table(
        ("check", "outcome", "value", "limit", "what was found"),
        [(one.name, one.outcome.value, one.value, one.limit, one.message) for one in report.checks],
    )
    page = path.removesuffix(".json") + ".html"
    output.console().print(f"report: {store.url}/{page}", markup=False)


def gate_failure(report: GateReport, path: str) -> GateFailed:
    """Returns the error of a snapshot that the gate refuses."""
    told = "".join(f"\n  {one.name}: {one.message}" for one in report.failed)
    return GateFailed(
        f"the release gate refuses {report.snapshot_id}:{told}\n"
        f"Mend it and build again, or promote it with --force --why REASON; {path} has the figures"
    )
