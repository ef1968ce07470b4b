"""Baseline of `nearline bench retrieval`: Milvus through its own client."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import NamedTuple

import numpy as np
import pymilvus
import uvloop

from benchmarks.workloads.closed_loop import SearchRound, SearchTask, exact_answers, mean_recall


class MilvusCollection(NamedTuple):
    """A collection of chunks in Milvus, and its address."""

    uri: str
    token: str
    name: str


def milvus_round(task: SearchTask, place: MilvusCollection, seconds: float) -> SearchRound:
    """Searches in a closed loop through pymilvus' asyncio client, as its documentation shows."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_round(task, place, seconds))


async def _round(task: SearchTask, place: MilvusCollection, seconds: float) -> SearchRound:
    exact = exact_answers(task)
    queries = [row.tolist() for row in exact["queries"]]
    params = {"params": {"ef": max(task.ef, task.k)}}
    clock = time.perf_counter
    numbers = itertools.count()
    latencies: list[float] = []
    found: list[tuple[int, list[str]]] = []
    async with pymilvus.AsyncMilvusClient(place.uri, token=place.token) as client:

        async def search(number: int) -> list[str]:
            (hits,) = await client.search(
                place.name,
                data=[queries[number]],
                anns_field="vector",
                limit=task.k,
                search_params=params,
                consistency_level="Eventually",
                timeout=30,
            )
            return [hit.pk if "key" not in hit else hit["key"] for hit in hits]

        await search(0)
        start = clock()
        end = start + seconds

        async def caller() -> None:
            while (now := clock()) < end:
                number = next(numbers) % len(queries)
                found.append((number, await search(number)))
                latencies.append(clock() - now)

        await asyncio.gather(*(caller() for _ in range(task.concurrency)))
        spent_s = clock() - start
    return SearchRound(
        qps=len(latencies) / spent_s,
        latencies_s=np.array(latencies),
        recall=mean_recall(task, found),
        replies=len(found),
    )
