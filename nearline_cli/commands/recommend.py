"""`nearline recommend`: asks a running router for recommendations."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output
from nearline_cli.views.hits import (
    hit_record,
    ignored_records,
    print_ignored,
    reply_summary,
    served_by_record,
)

_SHOWN = frozenset({c.PayloadField.TITLE, c.PayloadField.ATTRIBUTES})


def recommend(
    user: Annotated[
        str, typer.Option(metavar="ID", help="User to recommend for. \\[default: unknown]")
    ] = "",
    session: Annotated[
        str, typer.Option(metavar="ID", help="Session to recommend for. \\[default: none]")
    ] = "",
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Recommend items that go with this one; may be repeated."),
    ] = None,
    surface: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where the list is shown, which selects its policy: home, item_page, cart, "
            "trending, buy_again, or a surface of the router's policy file.",
        ),
    ] = c.DEFAULT_SURFACE,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", help="Number of items, 1..1000.")
    ] = 10,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Item to exclude; may be repeated."),
    ] = None,
    filter: options.FilterOption = "",
    diversity: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="Weight of diversity: prefer items unlike the ones above them. \\[default: the "
            "policy's]",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show why each item is recommended.")
    ] = False,
    why_not: Annotated[
        str, typer.Option(metavar="ID", help="Explain why this item is not in the list.")
    ] = "",
    timeout: options.TimeoutOption = options.DEFAULT_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Recommend items for a user, a session or an item.

    For example: nearline recommend --user u42 --explain

    A new visitor gets popular items.
    """
    audience = c.Audience(
        user_id=user, session_id=session, item_ids=tuple(item or ()), surface=surface
    )
    wanted = c.RecommendOptions(
        n=limit,
        exclude_ids=tuple(exclude or ()),
        filter=parse_filter(filter) if filter else None,
        payload=_SHOWN,
        diversity=diversity,
        explain=explain,
        why_not_id=why_not,
    )
    with BlockingRetrievalClient(address) as client:
        start = time.perf_counter()
        reply = client.recommend(audience, wanted, collection=collection, timeout_s=timeout)
        seconds = time.perf_counter() - start
    if as_json:
        output.print_json(_record(reply, seconds))
        return
    output.print_table(
        ("#", "score", "id", "title", *(("why",) if explain else ())),
        [
            (
                *(place, one.hit.score, one.hit.id, one.hit.title or ""),
                *((", ".join(one.reasons),) if explain else ()),
            )
            for place, one in enumerate(reply.recommendations, 1)
        ],
    )
    print_ignored(reply.ignored_ids)
    if reply.why_not is not None:
        why = reply.why_not
        output.console().print(f"{why.id}: {why.cause.value}: {why.message}")
    output.console().print(f"policy {reply.policy} · {reply_summary(reply.info, seconds)}")


def _record(reply: c.RecommendReply, seconds: float) -> dict[str, object]:
    why = reply.why_not
    return {
        "recommendations": [
            {
                **hit_record(recommendation.hit),
                "reasons": list(recommendation.reasons),
                "propensity": recommendation.propensity,
            }
            for recommendation in reply.recommendations
        ],
        "ignored_ids": ignored_records(reply.ignored_ids),
        "why_not": None
        if why is None
        else {"id": why.id, "cause": why.cause.value, "rank": why.rank, "message": why.message},
        "policy": reply.policy,
        "list_id": reply.info.list_id,
        "epoch": reply.info.epoch,
        "snapshot": reply.info.snapshot_id,
        "served_by": served_by_record(reply.info),
        "client_ms": output.to_milliseconds(seconds),
        "total_ms": output.to_milliseconds(reply.info.total_s),
    }
