"""`nearline search`: one query to a running router."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline import vectors
from nearline.clients import RetrievalClient
from nearline.contract import (
    Grouping,
    Hit,
    PayloadField,
    PlanStrategy,
    Query,
    ReplyInfo,
    SearchMode,
    SearchOptions,
    SearchReply,
)
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_PAYLOAD = frozenset({PayloadField.TITLE, PayloadField.TEXT, PayloadField.ATTRIBUTES})
_SNIPPET_CHARACTERS = 96


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
        output.print_json(reply_record(reply, seconds))
    else:
        print_hits(reply, seconds)


def print_hits(reply: SearchReply, seconds: float) -> None:
    """Prints a table of hits, and one line about the answer."""
    names = ["#", "score"]
    explained = [hit.explanation for hit in reply.hits if hit.explanation is not None]
    if explained:
        names += ["by vector", "by words"]
    if any(hit.group is not None for hit in reply.hits):
        names.append("group")
    names += ["id", "text"]
    output.print_table(names, [_row(rank, hit, names) for rank, hit in enumerate(reply.hits, 1)])
    for plan in reply.results[0].plans:
        output.console().print(f"shard {plan.shard}: {plan.strategy.value}: {plan.reason}")
    for ignored in reply.results[0].ignored_ids:
        output.console(error=True).print(f"ignored: {ignored.id} ({ignored.reason.value})")
    output.console().print(reply_summary(reply.info, seconds))


def _row(rank: int, hit: Hit, names: Sequence[str]) -> list[object]:
    said = hit.explanation
    cells = {
        "#": rank,
        "score": hit.score,
        "by vector": _leg(said.dense_score, said.dense_rank) if said else "",
        "by words": _leg(said.lexical_score, said.lexical_rank) if said else "",
        "group": "" if hit.group is None else str(hit.group),
        "id": hit.id,
        "text": output.one_line(_shown(hit), _SNIPPET_CHARACTERS),
    }
    return [cells[name] for name in names]


def _leg(score: float | None, rank: int | None) -> str:
    if score is None:
        return "-"
    return f"{score:.3f}" if rank is None else f"{score:.3f} (#{rank})"


def reply_summary(info: ReplyInfo, seconds: float) -> str:
    """Returns one line: times, epoch, snapshot, coverage, and why an answer is not a full one."""
    coverage = info.coverage
    parts = [
        f"{seconds * 1e3:.1f} ms (server {_ms(info.total_s)}: "
        f"embed {_ms(info.embed_s)}, search {_ms(info.search_s)})",
        f"epoch {info.epoch}",
        f"snapshot {info.snapshot_id}",
        f"shards {coverage.shards_answered}/{coverage.shards_total}",
    ]
    if info.served_by.reason:
        parts.append(f"{info.served_by.source.value}: {info.served_by.reason}")
    return " · ".join(parts)


def reply_record(reply: SearchReply, seconds: float) -> dict[str, object]:
    """Returns a reply as one JSON object; times in milliseconds."""
    info = reply.info
    return {
        "hits": [hit_record(hit) for hit in reply.hits],
        "ignored_ids": [
            {"id": ignored.id, "reason": ignored.reason.value}
            for ignored in reply.results[0].ignored_ids
        ],
        "plans": [
            {
                "shard": plan.shard,
                "strategy": plan.strategy.value,
                "matches": None if plan.strategy is PlanStrategy.BACKEND else plan.matches,
                "chunks": plan.chunks,
                "ef_search": plan.ef_search,
                "reason": plan.reason,
            }
            for plan in reply.results[0].plans
        ],
        "epoch": info.epoch,
        "snapshot": info.snapshot_id,
        "fingerprint": info.fingerprint,
        "coverage": {
            "answered": info.coverage.shards_answered,
            "total": info.coverage.shards_total,
            "missing": list(info.coverage.missing_shards),
        },
        "served_by": served_by_record(info),
        "client_ms": output.to_milliseconds(seconds),
        "total_ms": output.to_milliseconds(info.total_s),
        "embed_ms": output.to_milliseconds(info.embed_s),
        "search_ms": output.to_milliseconds(info.search_s),
    }


def served_by_record(info: ReplyInfo) -> dict[str, object]:
    """Returns where an answer came from as a JSON object."""
    served_by = info.served_by
    return {
        "source": served_by.source.value,
        "rung": served_by.rung,
        "reason": served_by.reason,
    }


def hit_record(hit: Hit) -> dict[str, object]:
    """Returns a hit as a JSON object."""
    return {
        "id": hit.id,
        "score": hit.score,
        "chunk": hit.chunk,
        "start": hit.start,
        "end": hit.end,
        "title": hit.title,
        "text": hit.text,
        "attributes": dict(hit.attributes or {}),
        "group": hit.group,
        "explanation": None if hit.explanation is None else asdict(hit.explanation),
    }


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


def _shown(hit: Hit) -> str:
    return " — ".join(part for part in (hit.title, hit.text) if part)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"
