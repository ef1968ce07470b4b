"""Measures the time and the memory of training on a synthetic catalogue, stage by stage.

Ten interactions per item and twenty per user; popularity follows Zipf and Mandelbrot, so items
co-occur by chance: real users agree more, and have fewer different pairs.

    python -m benchmarks.training_scale --items 200000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads.process_memory import forget_peak, memory
from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.behaviour.evaluation_task import make_task
from index_builder.behaviour.id_remap import map_ids, remap_tables
from index_builder.behaviour.item_to_item import item_to_item_lists
from index_builder.behaviour.session_cooccurrence import session_lists
from index_builder.behaviour.sparse_ease import sparse_ease_lists
from index_builder.behaviour.table_writer import write_tables
from index_builder.behaviour.tables import build_histories
from index_builder.behaviour.tail_lists import build_tail_lists
from index_builder.behaviour.user_item_matrix import item_counts, users_by_items
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import split
from nearline.times import DAY_US
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.tables import BehaviourTables

# Popularity is 1 / (rank + shift).
_SHIFT = 50


def synthetic(items: int, seed: int = 0) -> Interactions:
    """Returns 10 x items interactions of items / 2 users within a year."""
    rng = np.random.default_rng(seed)
    users, rows = max(items // 2, 1), 10 * items
    shares = np.cumsum(1 / (np.arange(items) + _SHIFT))
    ranks = np.searchsorted(shares, rng.random(rows) * shares[-1]).astype(np.int32)
    return Interactions(
        [f"u{number:09d}" for number in range(users)],
        [f"i{number:09d}" for number in range(items)],
        # Some users have a few interactions, some hundreds.
        (users * rng.random(rows) ** 1.5).astype(np.int32),
        rng.permutation(items).astype(np.int32)[np.minimum(ranks, items - 1)],
        rng.integers(0, 365 * DAY_US, rows),
        np.ones(rows, np.float32),
    )


def measure(stages: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    """Runs a stage, and notes its seconds and the largest resident memory meanwhile, in MiB."""
    pid = os.getpid()
    forget_peak(pid)
    before, start, cpu = memory(pid, "RssAnon"), time.perf_counter(), time.process_time()
    result = work()
    stages[name] = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "before_mib": before >> 20,
        "peak_mib": memory(pid, "VmHWM") >> 20,
    }
    print(name, stages[name], flush=True)
    return result


def run(items: int, iterations: int) -> dict[str, Any]:
    """Returns the measurements by stage."""
    stages: dict[str, Any] = {}
    rows = measure(stages, "data", lambda: synthetic(items))
    ordered = measure(stages, "order by time", rows.by_time)
    matrix = measure(stages, "matrix", lambda: users_by_items(rows))
    sessions = measure(stages, "sessions", lambda: session_lists(ordered))
    measure(stages, "item to item", lambda: item_to_item_lists(matrix))
    ease = measure(stages, "sparse EASE", lambda: sparse_ease_lists(matrix))
    factors: ItemFactors = measure(
        stages,
        "factors",
        lambda: train_factors(matrix, AlsOptions(iterations=iterations), threads=1),
    )
    parts = measure(stages, "split", lambda: split(rows, "last-n:5"))
    measure(stages, "task", lambda: make_task(parts))
    histories = measure(stages, "histories", lambda: build_histories(rows))
    tables = BehaviourTables(
        rows.items,
        item_counts(rows),
        {"popularity": item_counts(rows).astype(np.float32)},
        {"session": sessions, "ease": ease},
        factors,
        histories,
    )
    # A tenth of the documents are new.
    ids = sorted([*rows.items, *(f"{one}x" for one in rows.items[::10])])
    renumbered: BehaviourTables = measure(
        stages, "renumber", lambda: remap_tables(tables, map_ids(tables.ids, ids), ids)
    )
    trained = renumbered.interactions > 0
    measure(
        stages,
        "tails",
        lambda: build_tail_lists(renumbered.lists["session"], renumbered.factors, trained),
    )
    with tempfile.TemporaryDirectory() as folder:
        measure(stages, "write", lambda: write_tables(renumbered, Path(folder), 4))
    return stages


def main() -> None:
    """Runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=50_000, help="Number of items")
    parser.add_argument("--iterations", type=int, default=15, help="Iterations of the factors")
    parser.add_argument("--json", action="store_true", help="Print one JSON object at the end")
    arguments = parser.parse_args()
    stages = run(arguments.items, arguments.iterations)
    if arguments.json:
        print(json.dumps({"items": arguments.items, "stages": stages}))


if __name__ == "__main__":
    main()
