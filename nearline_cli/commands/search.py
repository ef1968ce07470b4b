"""`nearline search`: one query to a running router."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline import vectors
from nearline.clients import RetrievalClient
from nearline.contract import (
    Grouping,
    PayloadField,
    Query,
    SearchMode,
    SearchOptions,
    SearchReply,
)
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output
from nearline_cli.views import hits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_PAYLOAD = frozenset({PayloadField.TITLE, PayloadField.TEXT, PayloadField.ATTRIBUTES})


def search(
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="What to look for.")] = "",
    vector: Annotated[
        str,
        typer.Option(metavar="JSON|FILE", help="A vector instead: [0.1, …], a .npy or .json file."),
    ] = "",
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Items similar to this one instead; may be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Hits wanted, 1..10000.")] = 10,
    mode: Annotated[
        SearchMode | None, typer.Option(help="How candidates are found. \\[default: the server's]")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Scan every vector.")] = False,
    ef_search: Annotated[
        int | None, typer.Option(metavar="N", help="Width of the graph search.")
    ] = None,
    filter: options.FilterOption = "",
    group_by: Annotated[
        str, typer.Option(metavar="NAME", help="Attribute; the best hits of each of its values.")
    ] = "",
    group_size: Annotated[int, typer.Option(metavar="N", help="Hits of each, 1..100.")] = 1,
    diversity: Annotated[
        float, typer.Option(metavar="0..1", help="Weight of being unlike the hits before.")
    ] = 0.0,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE",
            help="Only hits that score as much. Hybrid scores compare within one search "
            "only, and the best is near 1 however bad: use it with --mode dense or lexical.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Show both legs of every score, and how a filter was carried out."
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait.")] = 10.0,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Search a running service by text, by vector or by example."""
    query = _query(text, vector, item or [])
    wanted = SearchOptions(
        k=k,
        mode=mode,
        payload=DEFAULT_PAYLOAD,
        exact=exact,
        ef_search=ef_search,
        filter=parse_filter(filter) if filter else None,
        explain=explain,
        grouping=Grouping(group_by, group_size) if group_by else None,
        diversity=diversity,
        min_score=min_score,
    )

    async def run() -> tuple[SearchReply, float]:
        async with RetrievalClient(address) as client:
            start = time.perf_counter()
            reply = await client.search(query, wanted, collection=collection, timeout_s=timeout)
            return reply, time.perf_counter() - start

    reply, seconds = asyncio.run(run())
    if as_json:
        output.print_json(hits.reply_record(reply, seconds))
    else:
        hits.print_hits(reply, seconds)


def _query(text: str, vector: str, items: list[str]) -> Query:
    given = [
        name for name, value in (("TEXT", text), ("--vector", vector), ("--item", items)) if value
    ]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise InvalidRequest(f"give one of TEXT, --vector and --item; found {found}", field="query")
    if text:
        return Query(text=text)
    if items:
        return Query(item_ids=tuple(items))
    return Query(vector=_vector(vector))


def _vector(given: str) -> NDArray[np.float32]:
    import numpy as np

    try:
        if given.endswith(".npy"):
            loaded = np.load(given, allow_pickle=False)
        else:
            source = given if given.lstrip().startswith("[") else Path(given).read_text("utf-8")
            loaded = np.array(json.loads(source), dtype=np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidRequest(
            f"--vector {output.one_line(given, 40)!r} cannot be read: {error}; "
            "give a JSON list of numbers, or a .npy or .json file",
            field="query.vector",
        ) from error
    matrix = vectors.as_matrix(loaded, "query.vector")
    if len(matrix) != 1:
        raise InvalidRequest(
            f"--vector has shape {loaded.shape}; one vector (d,) is needed", field="query.vector"
        )
    row: NDArray[np.float32] = matrix[0]
    return row
