"""`nearline search`: sends one query to a running router."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline import vectors
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.contract import (
    Grouping,
    Highlighting,
    PayloadField,
    Query,
    SearchMode,
    SearchOptions,
)
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from nearline.items.attributes import decode
from nearline_cli.terminal import options, output
from nearline_cli.views import hits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_PAYLOAD = frozenset({PayloadField.TITLE, PayloadField.TEXT, PayloadField.ATTRIBUTES})


def search(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Text to search for.")
    ] = None,
    vector: Annotated[
        str,
        typer.Option(
            metavar="JSON|FILE",
            help="Search by a vector instead: a JSON list such as [0.1, …], or a .npy or .json "
            "file.",
        ),
    ] = "",
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Find items similar to this one instead; may be repeated."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", help="Number of hits, 1..10000.")
    ] = 10,
    mode: Annotated[
        SearchMode | None, typer.Option(help="Search mode. \\[default: the server's]")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Scan every vector instead of using the index.")
    ] = False,
    ef_search: Annotated[
        int | None, typer.Option(metavar="N", help="Width of the graph search.")
    ] = None,
    filter: options.FilterOption = "",
    group_by: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Attribute to group by: returns the best hits of each value."
        ),
    ] = "",
    group_size: Annotated[int, typer.Option(metavar="N", help="Hits per group, 1..100.")] = 1,
    diversity: Annotated[
        float,
        typer.Option(
            metavar="0..1", help="Weight of diversity: prefer hits unlike the ones above them."
        ),
    ] = 0.0,
    rerank: options.RerankOption = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE",
            help="Minimum score of a hit. Hybrid scores are comparable only within one search, and "
            "the best is near 1 however poor the match: use it with --mode dense or lexical.",
        ),
    ] = None,
    plain_text: Annotated[
        bool,
        typer.Option(
            "--plain-text",
            help='Search for TEXT as it is. Otherwise "quoted words" must be in a hit, -words must '
            "not, and a last word* may go on.",
        ),
    ] = False,
    min_should_match: Annotated[
        float | None,
        typer.Option(
            metavar="0..1", help="Share of the words of TEXT that a hit must have; 1 means all."
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show the vector and word part of each score, and how the filter was applied.",
        ),
    ] = False,
    boost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON",
            help='Raise or lower scores by an attribute, such as {"field": "published", "decay": '
            '{"scale": 2592000}}; may be repeated.',
        ),
    ] = None,
    highlight: Annotated[
        bool,
        typer.Option(
            "--highlight",
            help="Show the best passage of each hit, and mark the words of the query.",
        ),
    ] = False,
    user: Annotated[
        str, typer.Option(metavar="ID", help="User to order the hits for; needs --personal.")
    ] = "",
    personal: Annotated[
        float,
        typer.Option(
            metavar="0..1",
            help="How much the taste of --user counts in the order of the best hits.",
        ),
    ] = 0.0,
    timeout: options.TimeoutOption = options.DEFAULT_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Search a running service by text, by vector or by example.

    For example: nearline search "compress a file" --filter 'kind = class' -n 5
    """
    query = _query(text, vector, item or [])
    wanted = SearchOptions(
        k=limit,
        mode=mode,
        payload=DEFAULT_PAYLOAD,
        exact=exact,
        ef_search=ef_search,
        filter=parse_filter(filter) if filter else None,
        explain=explain,
        grouping=Grouping(group_by, group_size) if group_by else None,
        diversity=diversity,
        rerank=rerank,
        min_score=min_score,
        boosts=[_boost(one) for one in boost or ()],
        highlight=Highlighting() if highlight else None,
        plain_text=plain_text,
        min_should_match=min_should_match,
        user_id=user,
        personal=personal,
    )
    with BlockingRetrievalClient(address) as client:
        start = time.perf_counter()
        reply = client.search(query, wanted, collection=collection, timeout_s=timeout)
        seconds = time.perf_counter() - start
    if as_json:
        output.print_json(hits.reply_record(reply, seconds))
    else:
        hits.print_hits(reply, seconds)


def _query(text: str | None, vector: str, items: list[str]) -> Query:
    if text == "":
        raise InvalidRequest("TEXT is empty; name the words to search for", field="query.text")
    sources = [
        name for name, value in (("TEXT", text), ("--vector", vector), ("--item", items)) if value
    ]
    if len(sources) != 1:
        found = " and ".join(sources) or "none"
        raise InvalidRequest(f"give one of TEXT, --vector and --item; found {found}", field="query")
    if text:
        return Query(text=text)
    if items:
        return Query(item_ids=tuple(items))
    return Query(vector=_vector(vector))


def _boost(text: str) -> Mapping[str, Any]:
    try:
        # Times are written as in attributes: {"$time": "2026-05-01T00:00:00Z"}.
        found = decode(text)
    except ValueError as error:
        raise _bad_boost(text, str(error)) from error
    if not isinstance(found, dict):
        raise _bad_boost(text, "it is no object")
    return found


def _bad_boost(text: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"--boost {output.one_line(text, 60)!r} cannot be read: {problem}; give a JSON object such "
        'as {"field": "brand", "any_of": ["acme"], "weight": 0.5}',
        field="options.boosts",
    )


def _vector(text: str) -> NDArray[np.float32]:
    import numpy as np

    try:
        if text.endswith(".npy"):
            loaded = np.load(text, allow_pickle=False)
        else:
            source = text if text.lstrip().startswith("[") else Path(text).read_text("utf-8")
            loaded = np.array(json.loads(source), dtype=np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InvalidRequest(
            f"--vector {output.one_line(text, 40)!r} cannot be read: {error}; "
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
