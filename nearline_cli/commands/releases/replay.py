"""`nearline replay`: replays recorded requests against two snapshots."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline_cli.compose import release_gate
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from index_builder.releases.replay import Replay

_WORST_SHOWN = 20


def replay(
    against: Annotated[
        tuple[str, str],
        typer.Option(metavar="FIRST SECOND", help="Ids of the two snapshots, the older one first."),
    ],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    requests: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Number of requests; the newest recorded ones are replayed."
        ),
    ] = 1_000,
    k: Annotated[
        int,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=100,
            metavar="N",
            help="Number of ids to compare per request.",
        ),
    ] = 10,
    passes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="How often each request is timed on each snapshot, alternating.",
        ),
    ] = 3,
    embedding: release_gate.EmbeddingOption = "",
    policies: release_gate.PoliciesOption = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write an HTML page that shows the differences side by side."
        ),
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Replay recorded requests against two snapshots; report differences and latency by segment.

    For example: nearline replay --against 20261125T004218Z-1f3a9c 20261126T101500Z-7be204

    Both snapshots are loaded here; no service has to run. Recommendations are requested without
    users. If nothing was recorded, the golden queries of the first snapshot are used. With --json,
    prints one line per segment.
    """
    if html is not None and not html.absolute().parent.is_dir():
        raise InvalidRequest(f"there is no folder {html.parent} for --html; make it", field="html")

    async def run() -> tuple[Replay, dict[str, str]]:
        return await _replay(
            Store.open(store), collection, against, requests, k, passes, embedding, policies
        )

    found, titles = asyncio.run(run())
    from index_builder.releases.breakdown import breakdown_rows, worst_pairs
    from index_builder.releases.replay_page import describe_source, render

    rows = breakdown_rows(found)
    if html is not None:
        html.write_text(render(found, rows, worst_pairs(found, _WORST_SHOWN), titles), "utf-8")
    if as_json:
        about = {
            "collection": collection,
            "first": found.first.id,
            "second": found.second.id,
            "source": found.source,
            "left_out": dict(found.left_out),
        }
        for row in rows:
            output.print_json({**row, **about})
        return
    output.print_table(list(rows[0]), [list(row.values()) for row in rows])
    output.console().print(describe_source(found))
    for why, count in found.left_out.items():
        output.console().print(f"{count:,} requests could not be replayed: {why}")


async def _replay(
    store: Store,
    collection: str,
    against: tuple[str, str],
    requests: int,
    k: int,
    passes: int,
    embedding: str,
    policies: Path | None,
) -> tuple[Replay, dict[str, str]]:
    """Returns the replay, and titles of items of the requests that differ most."""
    from index_builder.releases.breakdown import worst_pairs
    from index_builder.releases.probes import probes_for
    from index_builder.releases.replay import replay
    from index_builder.releases.snapshot_loader import load_snapshot
    from nearline.clients import EmbeddingClient
    from nearline.contract import PayloadField
    from retrieval.recommend.policy_file import read_policies
    from retrieval.search import item_lookup
    from retrieval.search.request_context import RequestContext
    from retrieval.shards.topology import parse_addresses

    addresses = parse_addresses(embedding, "--embedding")
    rules = read_policies(policies) if policies else None
    async with contextlib.AsyncExitStack() as stack:
        embedders = {
            one: await stack.enter_async_context(EmbeddingClient(one)) for one in addresses
        }
        first, second = [
            await stack.enter_async_context(
                load_snapshot(store, collection, snapshot_id, embedders, rules)
            )
            for snapshot_id in against
        ]
        probes = probes_for(store, collection, first, requests)
        found = await replay(first, second, probes, k=k, passes=passes)
        titles: dict[str, str] = {}
        shown = worst_pairs(found, _WORST_SHOWN)
        ids = {one for pair in shown for one in (*pair.first.ids[:k], *pair.second.ids[:k])}
        for snapshot in (first, second):
            items = await item_lookup.fetch_items(
                snapshot.served, sorted(ids), frozenset({PayloadField.TITLE}), RequestContext()
            )
            titles |= {item.id: item.title for item in items.items.values() if item.title}
        return found, titles
