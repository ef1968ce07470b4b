"""`nearline rollout`: tries a snapshot alongside the current one, then promotes or aborts it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from nearline.errors import InvalidRequest, NotFound
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from nearline.wire.enums import numbers_of
from nearline_cli.compose import release_gate
from nearline_cli.compose.alias_admin import AliasChange, RouterAdmin, open_admin
from nearline_cli.terminal import alias_options, options, output
from nearline_cli.views.rollout_view import canary_name, canary_record, show_status

app = typer.Typer(no_args_is_help=True, help="Try a snapshot alongside the current one.")


class SplitBy(Enum):
    """Unit by which requests are split."""

    USER = "user"
    SESSION = "session"
    REQUEST = "request"


_SPLITS = numbers_of(SplitBy, release_pb2.SplitBy)


@app.command()
def start(
    snapshot_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="Snapshot id. Without it, --policies FILE are tried."),
    ] = "",
    share: Annotated[
        float,
        typer.Option(
            metavar="RATIO",
            help="Share of requests that the snapshot answers, 0..1; to change it, run this "
            "command again.",
        ),
    ] = 0.1,
    split_by: Annotated[
        SplitBy,
        typer.Option(
            "--split-by",
            help="Split by user, by session, or by request. A request without a user is split by "
            "its session, or else on its own.",
        ),
    ] = SplitBy.USER,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow", help="Compare its answers with the current ones, but do not serve them."
        ),
    ] = False,
    false_alarm: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Accepted probability of aborting a snapshot that is as good as the current one. "
            "\\[default: 0.01]",
        ),
    ] = None,
    latency_ratio: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Accepted latency, relative to the current snapshot. \\[default: 1.1]"
        ),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Required recall@10; 0: any. \\[default: the figure in its manifest, less 0.05]",
        ),
    ] = None,
    recall_sample: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Share of its searches that are repeated exactly to measure recall. \\[default: "
            "0.05]",
        ),
    ] = None,
    min_effect: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Change of the click rate for which `status` states the lists needed. "
            "\\[default: 0.1]",
        ),
    ] = None,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: options.WhyOption = "",
    force: release_gate.ForceOption = False,
    embedding: release_gate.EmbeddingOption = "",
    interactions: release_gate.InteractionsOption = None,
    policies: release_gate.PoliciesOption = None,
    expect_epoch: alias_options.EpochOption = 0,
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Serve a share of the requests from another snapshot, after the release gate has judged it.

    For example: nearline rollout start 20261125T004218Z-1f3a9c --share 0.05

    Routers load the snapshot alongside the current one. They abort the rollout automatically if the
    snapshot is slower, fails more often, finds less, or is clicked less often than chance explains.
    Requests that fail on it are answered by the current snapshot. The snapshot may have a different
    embedder if routers have both (--embedding A,B).

    Without a snapshot, --policies FILE are tried on the current one: nearline rollout start
    --policies new.toml --share 0.5
    """
    from retrieval.recommend.policy_file import read_policies
    from retrieval.snapshots import aliases

    release_gate.check_force_reason(force, why)
    aliases.check_share(share)
    values = {
        "false_alarm": false_alarm,
        "latency_ratio": latency_ratio,
        "min_recall": min_recall,
        "recall_sample": recall_sample,
        "min_effect": min_effect,
    }
    limits = release_pb2.RolloutLimits()
    for name, value in values.items():
        if value is not None:
            setattr(limits, name, value)
    rollout = release_pb2.Rollout(split_by=_SPLITS[split_by], shadow=shadow, limits=limits)
    who = aliases.operator_name()
    admin = open_admin(router, store, collection, redis)
    if not snapshot_id:
        if policies is None:
            raise InvalidRequest("name the snapshot to try, or policies: --policies FILE")
        read_policies(policies)  # Raises if it is no policy file.
        rollout.policies = policies.read_text("utf-8")
        record = admin.split("", share, rollout, AliasChange(who, why, expect_epoch))
        _print_record(collection, record, as_json)
        return
    opened = Store.open(store)
    if not router or snapshot_id in opened.snapshot_ids(collection):
        # The snapshot judged against must stay current.
        expect_epoch = aliases.check_epoch(opened, collection, expect_epoch)
    request = release_gate.GateRequest(
        embedding=embedding,
        # A rollout is the way to change the embedder.
        allow_model_change=True,
        interactions=interactions,
        policies=policies,
        redis=redis,
    )
    gate = _earlier_verdict(opened, collection, snapshot_id)
    if gate is None:
        gate = release_gate.require_gate_pass(
            opened,
            collection,
            snapshot_id,
            request,
            forced_because=why if force else "",
            router=router,
            quiet=as_json,
        )
    record = admin.split(snapshot_id, share, rollout, AliasChange(who, why, expect_epoch, gate))
    _print_record(collection, record, as_json)


@app.command()
def status(
    router: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the figures of a rollout, from the requests that one router answered."""
    reply = RouterAdmin(router, collection).rollout_status()
    show_status(collection, reply, as_json=as_json)


@app.command()
def promote(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: options.WhyOption = "",
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    wait_s: alias_options.WaitOption = alias_options.NO_WAIT,
    as_json: output.JsonFlag = False,
) -> None:
    """Make the canary the current snapshot.

    For example: nearline rollout promote --why "better clicks"
    """
    from retrieval.snapshots import aliases

    who = aliases.operator_name()
    why = why or "tried alongside the previous one"
    admin = open_admin(router, store, collection, redis)
    trial = admin.in_force()
    if not trial.canary:
        raise NotFound(
            f"no snapshot of {collection!r} is being tried alongside {trial.current}; start one "
            "with `nearline rollout start ID`"
        )
    if trial.rollout.policies and not router:
        raise InvalidRequest("policies are promoted through a router: add --address HOST:PORT")
    record = admin.promote(trial.canary, AliasChange(who, why, trial.epoch, trial.gate))
    admin.served(record, wait_s)
    _print_record(collection, record, as_json)


@app.command()
def abort(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: options.WhyOption = "",
    router: alias_options.RouterOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Abort the rollout: the current snapshot answers all requests again."""
    from retrieval.snapshots import aliases

    who = aliases.operator_name()
    record = open_admin(router, store, collection).end_split(AliasChange(who, why))
    _print_record(collection, record, as_json)


def _earlier_verdict(
    store: Store, collection: str, snapshot_id: str
) -> release_pb2.GateVerdict | None:
    """Returns the gate's verdict on a snapshot that is already being tried, else None."""
    try:
        record = store.alias_in_force(collection)
    except NotFound:
        return None
    same = record.canary == snapshot_id and record.HasField("gate")
    return record.gate if same else None


def _print_record(collection: str, record: snapshot_pb2.AliasRecord, as_json: bool) -> None:
    since = f"since epoch {record.epoch}"
    text = f"{record.current} answers all of {collection!r} {since}"
    if record.canary:
        shadow = ", in shadow" if record.rollout.shadow else ""
        text = (
            f"{canary_name(record)} answers {record.canary_share:.1%} of {collection!r} "
            f"{since}{shadow}"
        )
    details = {"shadow": record.rollout.shadow, "who": record.who, "why": record.why}
    output.print_result(canary_record(collection, record) | details, text, as_json=as_json)
