"""`nearline suggest`: completes what somebody types with titles."""

from __future__ import annotations

from typing import Annotated

import typer

from nearline.clients.blocking import BlockingRetrievalClient
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output


def suggest(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The first letters of a title.")],
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", help="Number of titles, 1..100.")
    ] = 10,
    filter: options.FilterOption = "",
    timeout: options.TimeoutOption = options.DEFAULT_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Complete what somebody types with titles of items.

    For example: nearline suggest "pulp fi" -n 5

    The title that is the text comes first, then titles that begin with it, then popular ones. End
    the text with a space if its last word is complete.
    """
    condition = parse_filter(filter) if filter else None
    with BlockingRetrievalClient(address) as client:
        reply = client.suggest(
            text, limit=limit, filter=condition, collection=collection, timeout_s=timeout
        )
    if as_json:
        output.print_json(
            {
                "suggestions": [
                    {
                        "title": one.title,
                        "id": one.id,
                        "score": one.score,
                        "spans": [list(span) for span in one.spans],
                    }
                    for one in reply.suggestions
                ],
                "queries": [{"text": one.text, "count": one.count} for one in reply.queries],
                "correction": reply.correction,
            }
        )
        return
    output.print_table(
        ("title", "id"), [(output.one_line(one.title, 80), one.id) for one in reply.suggestions]
    )
    if reply.queries:
        output.print_table(
            ("others searched for", "times"),
            [(output.one_line(one.text, 80), str(one.count)) for one in reply.queries],
        )
    if reply.correction:
        output.console().print(f"did you mean: {output.escaped(reply.correction)}")
