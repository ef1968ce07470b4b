"""Building a graph on the GPU by CAGRA, compared with the CPU's own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.baselines.processes import single_process_pool
from benchmarks.gpu_parts.figures import Figure
from benchmarks.gpu_parts.random_data import blocks, clustered_vectors
from benchmarks.gpu_parts.session import DIM, GPU, K, Session
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.indexes.exact_search import ExactResults, recall_of, scan
from index_builder.indexes.faiss_writer import HAS_CAGRA, SearchDefaults, search_index
from index_builder.indexes.shard_builder import build_shard, find_device
from index_builder.options.build_options import IndexOptions
from nearline.errors import InvalidRequest

_FACTORY = "HNSW32,Flat"
_QUERIES = 500
_CALIBRATION_ROWS = 20_000
# A graph of a million takes longer for each vector than one of 20,000.
_GROWTH = 1.5
_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_TARGET = 0.95


class _Build(NamedTuple):
    """A build: vectors per second, recall@10 at ef 64, and the least ef with recall 0.95 or 0."""

    rows: int
    seconds: float
    recall: float
    width: int

    @property
    def per_s(self) -> float:
        return self.rows / self.seconds

    def about(self) -> str:
        """Returns what describes the build."""
        least = f"recall {_TARGET} at ef {self.width}" if self.width else f"never {_TARGET}"
        return f"{self.rows:,} vectors in {self.seconds:.1f} s; {least}"


async def measure_build(session: Session) -> list[Figure]:
    """Measures the build of 1M vectors, in clusters."""
    with single_process_pool() as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, _measure, session)


def _measure(session: Session) -> list[Figure]:
    sizes = session.sizes
    file = session.folder / "clustered.f32"
    try:
        with file.open("wb") as stream:
            for block in blocks(clustered_vectors, sizes.build_rows, DIM, session.seed):
                stream.write(block.data)
        first = min(_CALIBRATION_ROWS, sizes.build_rows // 4)
        rate = _build(session, file, first, CPU_DEVICE).per_s
        rows = min(sizes.build_rows, int(rate * sizes.cpu_build_s / _GROWTH))
        cpu = _build(session, file, rows, CPU_DEVICE)
        gpu, reason = _on_gpu(session, file)
    finally:
        file.unlink(missing_ok=True)
    scaled = "" if rows == sizes.build_rows else "; fewer, for time, which helps the CPU"
    figures = [
        Figure(
            name="HNSW32 on the CPU", value=cpu.per_s, unit="vectors/s", note=cpu.about() + scaled
        ),
        Figure(name="HNSW32 on the CPU, recall@10 at ef 64", value=cpu.recall),
    ]
    names = ("HNSW32 by CAGRA", "HNSW32 by CAGRA, times the CPU")
    recall = "HNSW32 by CAGRA, recall@10 at ef 64"
    if gpu is None:
        return figures + [Figure(name=name, value=None, note=reason) for name in (*names, recall)]
    return [
        *figures,
        Figure(name=names[0], value=gpu.per_s, unit="vectors/s", note=gpu.about()),
        Figure(
            name=names[1],
            value=gpu.per_s / cpu.per_s,
            bar=10,
            note=f"in vectors/s, the start of its process included{scaled}",
        ),
        Figure(name=recall, value=gpu.recall, bar=cpu.recall - 0.01, note="bar: the CPU's - 0.01"),
    ]


def _on_gpu(session: Session, file: Path) -> tuple[_Build | None, str]:
    """Returns the build on the GPU, or why there is none."""
    if session.rehearsal:
        return None, "no GPU stands in for CAGRA"
    if not HAS_CAGRA:
        return None, "the installed FAISS has no CAGRA; install faiss-gpu-cuvs"
    try:
        device = find_device(GPU)
    except InvalidRequest as error:
        return None, error.message
    built = _build(session, file, session.sizes.build_rows, device)
    return (None, device.notes[0]) if device.notes else (built, "")


def _build(session: Session, file: Path, rows: int, device: BuildDevice) -> _Build:
    vectors = np.memmap(file, np.dtype("<f4"), "r", shape=(rows, DIM))
    queries = clustered_vectors(_QUERIES, DIM, session.seed)
    exact = scan(vectors, queries, K)
    target = session.folder / "graph.faiss"
    try:
        start = time.perf_counter()
        index, defaults = build_shard(
            _FACTORY,
            vectors,
            np.arange(rows),
            IndexOptions(),
            exact,
            target,
            shard=0,
            seed=session.seed,
            advance=lambda count: None,
            device=device,
        )
        seconds = time.perf_counter() - start
        recalls = {width: _recall(index, exact, vectors, width) for width in _WIDTHS}
    finally:
        target.unlink(missing_ok=True)
    least = next((width for width, recall in recalls.items() if recall >= _TARGET), 0)
    return _Build(rows, seconds, recalls[defaults.ef_search], least)


def _recall(
    index: object,
    exact: ExactResults,
    vectors: np.memmap[tuple[int, ...], np.dtype[np.float32]],
    width: int,
) -> float:
    rows, scores = search_index(index, exact.queries, K, SearchDefaults(width, 0))
    return recall_of(exact, vectors, rows, scores)
