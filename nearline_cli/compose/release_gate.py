"""The release gate for commands: options, judging, and the report on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.errors import GateFailed, InvalidRequest
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2
from nearline_cli.terminal import alias_options, output

if TYPE_CHECKING:
    from index_builder.interactions.records import Interactions
    from index_builder.releases.gate_report import GateReport
    from nearline.contract import Embedder
    from nearline.v1 import snapshot_pb2

ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Proceed although the gate refuses the snapshot; --why is required and recorded.",
    ),
]
EmbeddingOption = Annotated[
    str,
    typer.Option(
        "--embedding",
        metavar="HOST:PORT",
        help="Embedding services for the gate's queries, separated by commas. \\[default: checks "
        "that need one are skipped]",
    ),
]
ModelChangeOption = Annotated[
    bool,
    typer.Option("--allow-model-change", help="Allow a different embedder; routers must have it."),
]
InteractionsOption = Annotated[
    Path | None,
    typer.Option(
        "--interactions",
        metavar="FILE",
        help="Interactions after the training of the snapshot, to judge its recommendations: "
        "columns user, item and time in .csv, .csv.gz, .tsv or .parquet. \\[default: those "
        "recorded in --redis]",
    ),
]
PoliciesOption = Annotated[
    Path | None,
    typer.Option(
        "--policies",
        metavar="FILE",
        help="File with the policies of surfaces, as used by the routers.",
    ),
]


class GateRequest(NamedTuple):
    """Options of commands that ask the release gate."""

    embedding: EmbeddingOption = ""
    allow_model_change: ModelChangeOption = False
    interactions: InteractionsOption = None
    policies: PoliciesOption = None
    redis: alias_options.RedisOption = ""


class ForceOptions(NamedTuple):
    """Options of builds that serve a snapshot although the gate refuses it."""

    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Serve the snapshot even if the release gate refuses it; --why is required and "
            "recorded.",
        ),
    ] = False
    why: Annotated[
        str, typer.Option("--why", metavar="REASON", help="Reason of --force, for the record.")
    ] = ""
    force_promote: Annotated[
        str, typer.Option("--force-promote", metavar="REASON", hidden=True)
    ] = ""

    def reason(self) -> str:
        """Returns the reason to override the gate, or an empty string.

        Raises: InvalidRequest: there is a reason without --force, or the other way round.
        """
        check_force_reason(self.force, self.why)
        if self.why and not self.force:
            raise InvalidRequest(
                "--why is the reason of --force, which is not given; add --force, or leave --why "
                "out",
                field="why",
            )
        return self.why or self.force_promote


def check_force_reason(force: bool, why: str) -> None:
    """Raises InvalidRequest if --force is used without a reason."""
    if force and not why.strip():
        raise InvalidRequest(
            "--force overrides the release gate, which needs a reason for the record; add --why "
            "REASON",
            field="why",
        )


def judge_snapshot(
    store: Store, collection: str, snapshot_id: str, request: GateRequest
) -> tuple[GateReport, str]:
    """Judges a snapshot against the live one, and stores the report.

    Returns: The report, and its path in the store.
    """
    from index_builder.releases.build_gate import current_snapshot_id
    from index_builder.releases.gate import GateOptions, judge
    from index_builder.releases.gate_report import keep_report
    from nearline.clients import EmbeddingClient
    from nearline_cli.inputs.interactions import InteractionOptions
    from retrieval.recommend.policy_file import read_policies
    from retrieval.shards.topology import parse_addresses

    manifest = store.manifest(collection, snapshot_id)
    later: Interactions | None = None
    if request.interactions is not None:
        later = InteractionOptions().load(request.interactions).interactions
    policies = read_policies(request.policies) if request.policies else None
    addresses = parse_addresses(request.embedding, "--embedding")

    async def run() -> GateReport:
        async with contextlib.AsyncExitStack() as stack:
            embedders: dict[str, Embedder] = {
                address: await stack.enter_async_context(EmbeddingClient(address))
                for address in addresses
            }
            found = later
            if request.redis:
                found = await _recorded(store, collection, request.redis, manifest, later)
            options = GateOptions(
                embedders=embedders,
                allow_model_change=request.allow_model_change,
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
    request: GateRequest,
    *,
    forced_because: str,
    router: str,
    quiet: bool,
) -> release_pb2.GateVerdict:
    """Judges a snapshot before a change of the aliases, and prints the report.

    Args:
        store: The store.
        collection: Name of the collection.
        snapshot_id: Snapshot to judge.
        request: Inputs of the gate.
        forced_because: Reason to promote the snapshot even if the gate refuses it. Optional.
        router: Address of the router that promotes, or empty if the store is changed directly.
        quiet: Whether to print nothing.
    Returns: The verdict, for the record.
    Raises:
        GateFailed: The gate refuses the snapshot, and no reason overrides it.
        InvalidRequest: The store is not that of the router.
    """
    from retrieval.snapshots.gate_reports import NOT_JUDGED

    if router and snapshot_id not in store.snapshot_ids(collection):
        if forced_because:
            return release_pb2.GateVerdict(failed=[NOT_JUDGED], forced_because=forced_because)
        raise InvalidRequest(
            f"the release gate runs here, but {store.url} has no snapshot {snapshot_id}; name the "
            f"store of {router} with --store, or override the gate with --force --why REASON",
            field="store",
        )
    report, path = judge_snapshot(store, collection, snapshot_id, request)
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
    """Adds recorded interactions; archives deletions first, so that they are taken into account."""
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
    """Prints the checks of the gate, and the address of the report."""
    output.print_table(
        ("check", "outcome", "value", "limit", "finding"),
        [
            (check.name, check.outcome.value, check.value, check.limit, check.message)
            for check in report.checks
        ],
    )
    output.console().print(f"report: {store.url}/{path}")


def gate_failure(report: GateReport, path: str) -> GateFailed:
    """Returns the error for a snapshot that the gate refuses."""
    reasons = "".join(f"\n  {check.name}: {check.message}" for check in report.failed)
    return GateFailed(
        f"the release gate refuses {report.snapshot_id}:{reasons}\n"
        f"Fix this and build again, or promote it with --force --why REASON; see {path} for the "
        "figures"
    )
