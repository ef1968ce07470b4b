"""Payload of hits that were chosen only after the shards had answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nearline import contract as c
from nearline.errors import NearlineError
from retrieval import fanout
from retrieval.served import ServedCollection


async def fill(
    served: ServedCollection,
    lists: Sequence[list[tuple[int, c.Hit]]],
    options: c.SearchOptions,
    failures: dict[int, NearlineError],
    deadline: float | None,
) -> None:
    """Reads the payload of hits from the shards that hold them, all lists together.

    Args:
        served: The collection.
        lists: Hits with the numbers of their shards; a hit whose shard fails now is taken out.
        options: Says which parts are wanted.
        failures: Shards that did not answer; those that fail now are added.
        deadline: Loop time to stop waiting at.
    """
    wanted: dict[int, dict[tuple[str, int], list[c.Hit]]] = {}
    for ranked in lists:
        for shard, hit in ranked:
            wanted.setdefault(shard, {}).setdefault((hit.id, hit.chunk), []).append(hit)
    if not wanted:
        return
    calls = {
        shard: asyncio.ensure_future(
            served.shards[shard].fetch(
                served.snapshot_id,
                [document_id for document_id, _ in hits],
                options.payload,
                deadline,
                [chunk for _, chunk in hits],
            )
        )
        for shard, hits in wanted.items()
    }
    answers = await fanout.gather(
        calls, deadline, collection=served.name, full=options.require_full_coverage
    )
    for shard, items in answers.results.items():
        for same, item in zip(wanted[shard].values(), items, strict=True):
            for hit in same:
                _fill(hit, item, options.payload)
    if answers.failures:
        failures.update(answers.failures)
        for ranked in lists:
            ranked[:] = [one for one in ranked if one[0] not in answers.failures]


def _fill(hit: c.Hit, item: c.Item, payload: frozenset[c.PayloadField]) -> None:
    if c.PayloadField.TITLE in payload:
        hit.title = item.title
    if c.PayloadField.TEXT in payload:
        hit.text = item.text
    if c.PayloadField.ATTRIBUTES in payload:
        hit.attributes = item.attributes
    if c.PayloadField.VECTOR in payload:
        hit.vector = item.vector
