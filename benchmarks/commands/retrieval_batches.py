"""`nearline bench retrieval --batch`: SearchBatch, compared with FAISS in as many threads."""

from __future__ import annotations

from statistics import median

from benchmarks.baselines.baseline_faiss import faiss_round
from benchmarks.baselines.processes import router_process, run_in, single_process_pool
from benchmarks.workloads.closed_loop import (
    SearchRound,
    SearchTask,
    round_figures,
    run_batches,
)
from retrieval.settings import RouterSettings

_WARM_UP_S = 1.0


async def measure_batches(task: SearchTask, *, seconds: float, rounds: int) -> dict[str, object]:
    """Measures FAISS in process and a co-located router in turn.

    Both search in the router's number of threads; its event loop has a core of its own, if there is
    one.
    """
    threads = RouterSettings().thread_count()
    task = task._replace(threads=threads)
    raw: list[float] = []
    ours: list[SearchRound] = []
    with single_process_pool() as raw_process, single_process_pool() as caller:
        async with router_process(("--store", str(task.store)), 0) as router:
            for number in range(rounds + 1):
                # The first turn warms up, and does not count.
                length = seconds if number else _WARM_UP_S
                alone = await run_in(raw_process, faiss_round, task, length)
                one = await run_in(caller, run_batches, task, router.address, length)
                if number:
                    raw.append(alone)
                    ours.append(one)
    ratios = sorted(one.qps / alone for one, alone in zip(ours, raw, strict=True))
    return {
        **round_figures(ours, task.k),
        "threads": threads,
        "raw_qps": round(median(raw), 1),
        "ratio_to_raw": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
