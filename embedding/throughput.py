"""Measures the throughput of a backend."""

from __future__ import annotations

import threading
import time

from embedding.backend import Backend
from embedding.reference_texts import ReferenceSet


def measure_throughput(backend: Backend, golden: ReferenceSet, seconds: float = 1.0) -> float:
    """Returns tokens per second over the reference texts with all slots busy, after a warm-up.

    Args:
        backend: The backend.
        golden: The texts.
        seconds: Minimum duration; whole rounds are run.
    """
    _round(backend, golden)
    start = time.perf_counter()
    rounds = 0
    while time.perf_counter() - start < seconds:
        _round(backend, golden)
        rounds += 1
    return golden.tokens * rounds / (time.perf_counter() - start)


def _round(backend: Backend, golden: ReferenceSet) -> None:
    # The longest first, so that no slot idles long at the end.
    batches = iter(sorted(golden.batches, key=lambda batch: -batch.ids.size))
    lock = threading.Lock()

    def run(slot: int) -> None:
        while True:
            with lock:
                batch = next(batches, None)
            if batch is None:
                return
            backend.embed(batch, slot)

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(backend.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
