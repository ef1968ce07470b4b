"""`nearline rollout`: try a snapshot beside the current one, watch how it does, decide."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from nearline.errors import NotFound
from nearline.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from nearline_cli.compose import release_gate
from nearline_cli.compose.alias_admin import AliasChange, RouterAdmin, open_admin
from nearline_cli.terminal import alias_options, options, output
from nearline_cli.views.rollout_view import show_status

app = typer.Typer(no_args_is_help=True, help="Try a snapshot beside the current one.")


class SplitBy(Enum):
    """What requests are dealt by."""

    USER = "user"
    SESSION = "session"
    REQUEST = "request"


_SPLITS = {
    SplitBy.USER: release_pb2.SPLIT_BY_USER,
    SplitBy.SESSION: release_pb2.SPLIT_BY_SESSION,
    SplitBy.REQUEST: release_pb2.SPLIT_BY_REQUEST,
}


@app.command()
def start(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="Snapshot id.")],
    share: Annotated[
        float,
        typer.Option(
            metavar="RATIO",
            help="Share of requests that it answers, 0..1; to change it, start again.",
        ),
    ] = 0.1,
    split_by: Annotated[
        SplitBy,
        typer.Option(
            "--split-by",
            help="Deal by user, by session, or each request by itself. A request that names no "
            "user is dealt by its session, and else by itself.",
        ),
    ] = SplitBy.USER,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="Let nobody see its answers: they are compared, not served."),
    ] = False,
    false_alarm: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Chance to back out a snapshot that is as good as the current one. "
            "\\[default: 0.01]",
        ),
    ] = None,
    latency_ratio: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Latency that it may have, times the current one's. \\[default: 1.1]"
        ),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Recall@10 that it must have; 0: any. \\[default: what its manifest promises, "
            "less 0.05]",
        ),
    ] = None,
    recall_sample: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Share of its searches that are done again exactly to see that. \\[default: 0.05]",
        ),
    ] = None,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: alias_options.WhyOption = "",
    force: release_gate.ForceOption = False,
    embedding: release_gate.EmbeddingOption = "",
    interactions: release_gate.InteractionsOption = None,
    policies: release_gate.PoliciesOption = None,
    expect_epoch: alias_options.EpochOption = 0,
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Have a snapshot answer a share of the requests, once the release gate has judged it.

    Routers load it beside the current one, and back it out by themselves where it is slower, fails
    more, finds less, or is clicked less than chance explains. What it fails at the current one
    answers. Its embedder may be another one: routers need both (--embedding A,B).
    """
    from retrieval.snapshots import aliases

    release_gate.check_force_reason(force, why)
    aliases.check_share(share)
    given = {
        "false_alarm": false_alarm,
        "latency_ratio": latency_ratio,
        "min_recall": min_recall,
        "recall_sample": recall_sample,
    }
    limits = release_pb2.RolloutLimits()
    for name, value in given.items():
        if value is not None:
            setattr(limits, name, value)
    rollout = release_pb2.Rollout(split_by=_SPLITS[split_by], shadow=shadow, limits=limits)
    who = aliases.operator_name()
    opened = Store.open(store)
    if not router or snapshot_id in opened.snapshot_ids(collection):
        # What it is judged against stays so long.
        expect_epoch = aliases.check_epoch(opened, collection, expect_epoch)
    asked = release_gate.GateRequest(
        embedding=embedding,
        # Trying it beside the current one is what is done with another embedder.
        allow_model_change=True,
        interactions=interactions,
        policies=policies,
        redis=redis,
    )
    gate = _verdict(opened, collection, snapshot_id)
    if gate is None:
        gate = release_gate.require_gate_pass(
            opened,
            collection,
            snapshot_id,
            asked,
            forced_because=why if force else "",
            elsewhere=router,
            quiet=as_json,
        )
    admin = open_admin(router, store, collection, redis)
    record = admin.split(snapshot_id, share, rollout, AliasChange(who, why, expect_epoch, gate))
    _say(collection, record, as_json)


@app.command()
def status(
    router: Annotated[
        str, typer.Option("--router", metavar="HOST:PORT", help="Router to ask.")
    ] = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show how a canary does, by the requests that one router answered."""
    reply = RouterAdmin(router, collection).rollout_status()
    show_status(collection, reply, as_json=as_json)


@app.command()
def promote(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: alias_options.WhyOption = "",
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    wait_s: alias_options.WaitOption = 0.0,
    as_json: output.JsonFlag = False,
) -> None:
    """Make the canary the current snapshot."""
    from retrieval.snapshots import aliases

    who = aliases.operator_name()
    why = why or "tried beside the one before"
    admin = open_admin(router, store, collection, redis)
    tried = admin.in_force()
    if not tried.canary:
        raise NotFound(
            f"no snapshot of {collection!r} is tried beside {tried.current}; begin with "
            "`nearline rollout start ID`"
        )
    record = admin.promote(tried.canary, AliasChange(who, why, tried.epoch, tried.gate))
    admin.served(record, wait_s)
    _say(collection, record, as_json)


@app.command()
def abort(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: alias_options.WhyOption = "",
    router: alias_options.RouterOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """End the trial: the current snapshot answers everything again."""
    from retrieval.snapshots import aliases

    who = aliases.operator_name()
    record = open_admin(router, store, collection).end_split(AliasChange(who, why))
    _say(collection, record, as_json)


def _verdict(store: Store, collection: str, snapshot_id: str) -> release_pb2.GateVerdict | None:
    """Returns what the gate said of a snapshot that is tried already, and only gets another
    share."""
    try:
        record = store.alias_in_force(collection)
    except NotFound:
        return None
    same = record.canary == snapshot_id and record.HasField("gate")
    return record.gate if same else None


def _say(collection: str, record: snapshot_pb2.AliasRecord, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "collection": collection,
                "epoch": record.epoch,
                "current": record.current,
                "canary": record.canary or None,
                "canary_share": record.canary_share,
                "shadow": record.rollout.shadow,
                "who": record.who,
                "why": record.why,
            }
        )
        return
    since = f"since epoch {record.epoch}"
    if record.canary:
        seen = ", in shadow" if record.rollout.shadow else ""
        text = f"{record.canary} answers {record.canary_share:.1%} of {collection!r} {since}{seen}"
    else:
        text = f"{record.current} answers all of {collection!r} {since}"
    output.console().print(text)
