"""`nearline count`: counts matching items and the values of their attributes."""

from __future__ import annotations

from typing import Annotated

import typer

from nearline.clients.blocking import BlockingRetrievalClient
from nearline.contract import CountReply, Facet
from nearline.counts import counted
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output


def count(
    filter: options.FilterOption = "",
    facet: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Attribute whose values are counted; may be repeated."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", metavar="N", help="Values shown per attribute, 1..1000."),
    ] = 10,
    timeout: options.TimeoutOption = options.DEFAULT_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Count items, and the values of their attributes.

    For example: nearline count --filter 'year >= 2000' --facet kind
    """
    condition = parse_filter(filter) if filter else None
    facets = [Facet(field=name, limit=limit) for name in facet or ()]
    with BlockingRetrievalClient(address) as client:
        reply = client.count_items(condition, facets, collection=collection, timeout_s=timeout)
    if as_json:
        output.print_json(_record(reply))
        return
    output.console().print(counted(reply.count, "item"))
    for found in reply.facets:
        more = found.distinct - len(found.counts)
        rows: list[tuple[object, int]] = [(value, number) for value, number in found.counts]
        output.print_table((found.field, "items"), rows)
        output.console().print(
            (f"{counted(more, 'more value')}; " if more else "")
            + f"{counted(found.missing, 'item')} without any"
        )


def _record(reply: CountReply) -> dict[str, object]:
    coverage = reply.info.coverage
    return {
        "count": reply.count,
        "facets": [
            {
                "field": found.field,
                "counts": [{"value": value, "count": number} for value, number in found.counts],
                "distinct": found.distinct,
                "missing": found.missing,
            }
            for found in reply.facets
        ],
        "epoch": reply.info.epoch,
        "snapshot": reply.info.snapshot_id,
        "coverage": {"answered": coverage.shards_answered, "total": coverage.shards_total},
    }
