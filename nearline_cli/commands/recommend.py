"""`nearline recommend`: asks a running router for recommendations."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients.blocking import BlockingAdminClient, BlockingRetrievalClient
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output
from nearline_cli.terminal.scalars import read_scalars
from nearline_cli.views import recommendations as views

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
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Context of the request, such as device=phone; may be repeated.",
        ),
    ] = None,
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
    popularity_debias: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="How much popularity is discounted: 0 not at all, 1 as much as scores count. "
            "\\[default: the policy's, or else the one that was best on validation]",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show why each item is recommended.")
    ] = False,
    why: Annotated[
        bool,
        typer.Option("--why", help="Tell how the list came about: sources, rules, models, trial."),
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
        user_id=user,
        session_id=session,
        item_ids=tuple(item or ()),
        surface=surface,
        context=read_scalars(context or ()),
    )
    wanted = c.RecommendOptions(
        n=limit,
        exclude_ids=tuple(exclude or ()),
        filter=parse_filter(filter) if filter else None,
        payload=_SHOWN,
        diversity=diversity,
        popularity_debias=popularity_debias,
        explain=explain or why,
        why_not_id=why_not,
    )
    with BlockingRetrievalClient(address) as client:
        start = time.perf_counter()
        reply = client.recommend(audience, wanted, collection=collection, timeout_s=timeout)
        seconds = time.perf_counter() - start
    if as_json:
        output.print_json(views.recommendation_record(reply, seconds))
    else:
        views.print_recommendations(reply, seconds, short=why)
        if why:
            with BlockingAdminClient(address) as admin:
                views.print_serving(reply, collection, admin.serving_status())
