"""`nearline bench retrieval --backend milvus`: the router compared with Milvus' own client."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from statistics import median

from benchmarks.baselines.processes import single_process_pool
from benchmarks.workloads.closed_loop import SearchRound, SearchTask, round_figures, run_round
from benchmarks.workloads.prepared_calls import percentile_ms
from benchmarks.workloads.retrieval_dataset import RetrievalDataset
from nearline_cli.compose.milvus_target import MilvusTarget, export_temporarily
from nearline_cli.local.processes import retrieval_process

_WARM_UP_S = 2.0
_ENTRIES = 10_000
# Popularity of queries, like that of words and pages: the n-th is sent 1/n as often.
_ZIPF = 1.0


async def measure_milvus(
    prepared: RetrievalDataset, target: MilvusTarget, *, seconds: float, rounds: int
) -> dict[str, object]:
    """Writes the vectors into Milvus, and searches them in three ways, in turn.

    These are pymilvus alone; the router; and the router with a search cache, for queries whose
    popularity follows Zipf's law. The collection is dropped afterwards.
    """
    from benchmarks.baselines.baseline_milvus import MilvusCollection, milvus_round

    task = prepared.sides[0].task
    loop = asyncio.get_running_loop()
    alone: list[SearchRound] = []
    ours: list[SearchRound] = []
    hot: list[SearchRound] = []
    async with export_temporarily(task.store, task.collection, target) as export:
        place = MilvusCollection(target.uri, target.token, export.name)
        with single_process_pool() as client, single_process_pool() as caller:
            for number in range(rounds + 1):
                # The first turn warms up all three, and does not count.
                length = seconds if number else _WARM_UP_S
                one = await loop.run_in_executor(client, milvus_round, task, place, length)
                async with retrieval_process(task.store, target.router) as plain:
                    mine = await _searched(caller, task, plain.address, length)
                cache = ["--search-cache", str(_ENTRIES)]
                async with retrieval_process(task.store, target.router + cache) as caching:
                    # The lead-in fills the cache with popular queries.
                    await _searched(caller, task, caching.address, length, _ZIPF)
                    popular = await _searched(caller, task, caching.address, length, _ZIPF)
                if number:
                    alone.append(one)
                    ours.append(mine)
                    hot.append(popular)
    qps = median(turn.qps for turn in alone)
    return {
        "backend": "milvus",
        "milvus": export.version,
        **round_figures(ours, task.k),
        **round_figures(alone, task.k, "alone_"),
        **round_figures(hot, task.k, "hot_"),
        "hot_share": round(median(turn.cached for turn in hot), 4),
        "zipf": _ZIPF,
        "ratio_to_alone": round(median(turn.qps for turn in ours) / qps, 3),
        "p99_to_alone": round(percentile_ms(ours, 99) / percentile_ms(alone, 99), 3),
        "hot_ratio_to_alone": round(median(turn.qps for turn in hot) / qps, 3),
    }


async def _searched(
    caller: Executor, task: SearchTask, address: str, seconds: float, zipf: float = 0.0
) -> SearchRound:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(caller, run_round, task, address, seconds, zipf)
