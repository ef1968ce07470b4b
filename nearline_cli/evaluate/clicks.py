"""`nearline eval clicks`: fits the weight of vectors against words to clicks on searches."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace

import numpy as np

from index_builder.evaluation.leg_weights import ClickedSearch, propose_weight
from index_builder.releases.probes import probe_of
from nearline.clients import AdminClient, RetrievalClient
from nearline.contract import SearchMode, SearchOptions
from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic
from nearline_cli.compose.change_log import RedisOption, open_recorded
from nearline_cli.terminal import options, output
from retrieval.search.fusion import FusionParams

# As many as routers keep, and as both legs have candidates.
_REQUESTS, _CANDIDATES = 10_000, 200


def clicks(
    store: options.StoreOption = options.DEFAULT_STORE,
    redis: RedisOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Propose the weight of vectors in hybrid searches that fits the clicks on recorded searches.

    For example: nearline eval clicks

    A click is an interaction that names the list_id of a reply. The weight is chosen on the older
    searches, measured on the newest, and proposed only if it is better than the one in service.
    """
    found, served = asyncio.run(_read(store, redis, address, collection))
    proposal = propose_weight(found, served)
    if proposal is None:
        raise InvalidRequest(
            f"only {len(found)} recorded hybrid searches have clicks; let routers record more "
            "(--record-queries texts, --record-share), and name list_id in interactions"
        )
    gain, better = proposal.gain, proposal.gain.low > 0
    output.print_result(
        {**proposal._asdict(), "gain": gain._asdict(), "served": served, "better": better},
        f"{'set' if better else 'do not set'} options.dense_weight to {proposal.dense_weight:.2f}: "
        f"against {served:.2f}, it orders {gain.mean:+.1%} of the pairs as people clicked "
        f"({gain.low:+.1%} to {gain.high:+.1%}; {proposal.searches} searches)",
        as_json=as_json,
    )


async def _read(
    store: str, redis: str, address: str, collection: str
) -> tuple[list[ClickedSearch], float]:
    """Returns recorded searches with clicks, oldest first, and the weight in service."""
    clicked: defaultdict[str, set[str]] = defaultdict(set)
    async with open_recorded(store, collection, redis) as recorded:
        if recorded.states is not None:
            async for one in recorded.states.logged(collection):
                clicked[one.list_id].add(one.item_id)
    clicked.pop("", None)
    found = []
    async with RetrievalClient(address) as client, AdminClient(address) as admin:
        served = FusionParams.of(await admin.snapshot(collection)).dense_weight
        for request in reversed(read_traffic(Store.open(store), collection, _REQUESTS)):
            ids, probe = clicked.get(request.list_id, set()), probe_of(request)
            if not ids or request.personal or not _is_hybrid(probe.kind, probe.options):
                continue
            asked = replace(probe.options, k=_CANDIDATES, diversity=0.0, rerank=0, unrecorded=True)
            assert probe.query is not None
            legs = []
            for weight in (1.0, 0.0):
                of_leg = replace(asked, dense_weight=weight)
                reply = await client.search(probe.query, of_leg, collection=collection)
                legs.append({hit.id: hit.score for hit in reply.hits})
            shown = [one for one in request.ids if one in legs[0] and one in legs[1]]
            dense, lexical = (np.array([leg[one] for one in shown]) for leg in legs)
            found.append(ClickedSearch(dense, lexical, np.array([one in ids for one in shown])))
    return found, served


def _is_hybrid(kind: str, told: SearchOptions) -> bool:
    plain = not (told.boosts or told.grouping or told.min_score or told.dense_weight)
    return kind == "text" and told.mode in (None, SearchMode.HYBRID) and plain
