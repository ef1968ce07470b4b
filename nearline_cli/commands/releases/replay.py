"""`nearline replay`: replays recorded requests against two snapshots."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.store.snapshot import Store
from nearline_cli.compose import release_gate
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from index_builder.releases.replay import Replay, ReplayPair

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
    embedding: release_gate.EmbeddingOption = "",
    policies: release_gate.PoliciesOption = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Replay recorded requests against two snapshots; report differences and latency.

    For example: nearline replay --against 20261125T004218Z-1f3a9c 20261126T101500Z-7be204

    Both snapshots are loaded here; no service has to run. Recommendations are requested without
    users. If nothing was recorded, the golden queries of the first snapshot are used.
    """
    from index_builder.releases import replay as replays
    from index_builder.releases.probes import probes_for
    from index_builder.releases.snapshot_loader import load_snapshot
    from nearline.clients import EmbeddingClient
    from retrieval.recommend.policy_file import read_policies
    from retrieval.shards.topology import parse_addresses

    opened = Store.open(store)
    addresses = parse_addresses(embedding, "--embedding")
    rules = read_policies(policies) if policies else None

    async def run() -> Replay:
        async with contextlib.AsyncExitStack() as stack:
            embedders = {
                one: await stack.enter_async_context(EmbeddingClient(one)) for one in addresses
            }
            first, second = [
                await stack.enter_async_context(
                    load_snapshot(opened, collection, snapshot_id, embedders, rules)
                )
                for snapshot_id in against
            ]
            probes = probes_for(opened, collection, first, requests)
            return await replays.replay(first, second, probes, k=k)

    found = asyncio.run(run())
    summary: dict[str, object] = {
        "collection": collection,
        "first": found.first.id,
        "second": found.second.id,
        "source": found.source,
        **replays.summarize(found),
    }
    worst = [_difference(pair, k) for pair in replays.worst_pairs(found, _WORST_SHOWN)]
    if as_json:
        output.print_json({**summary, "left_out": dict(found.left_out), "worst": worst})
        return
    output.print_table(("field", "value"), list(summary.items()))
    if worst:
        lines = [[_text(value) for value in row.values()] for row in worst]
        output.print_table(list(worst[0]), lines)
    for why, count in found.left_out.items():
        output.console().print(f"{count:,} requests could not be replayed: {why}")


def _difference(pair: ReplayPair, k: int) -> dict[str, object]:
    """Returns a request whose answers differ: ids that only one snapshot lists, best first."""
    first, second = pair.first.ids[:k], pair.second.ids[:k]
    return {
        "request": f"{pair.probe.kind}: {pair.probe.describe()}",
        "overlap": round(pair.overlap, 4),
        "only_first": [one for one in first if one not in second],
        "only_second": [one for one in second if one not in first],
        "refused": pair.refused,
    }


def _text(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) else value
