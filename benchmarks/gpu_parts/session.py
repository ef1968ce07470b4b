"""The session of a run: the card, the sizes, and how a service with a GPU is started."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from nearline_cli.local.processes import ServiceProcess, service_process
from nearline_cli.sizing.cards import Card

DIM = 384
K = 10
GPU = "cuda:0"
_STAND_IN = "benchmarks.gpu_parts.stand_in"
# A start measures engines, or reads and checks 15 GB and copies them to the GPU.
_READY_S = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    rows, large_rows: Vectors of the exact searches. build_rows: Vectors of the graph. kill_rows:
    Vectors that are searched when the GPU is killed. cpu_build_s: Seconds that the CPU may take for
    its graph; it builds a smaller one if they are too few. seconds: Of a measured load. texts:
    Different texts. batch: Queries or texts of a request. routers: Routers that search 1M vectors,
    each with the vectors on the GPU, after one alone. processes: Callers' processes. in_flight:
    Requests of each that are in progress. kill_rate: Searches and queries per second while the GPU
    is killed. back_s: Seconds within which it must be back.
    """

    rows: int = 1_000_000
    large_rows: int = 10_000_000
    build_rows: int = 1_000_000
    kill_rows: int = 100_000
    cpu_build_s: float = 60.0
    seconds: float = 6.0
    texts: int = 8_192
    batch: int = 256
    routers: int = 3
    processes: int = 3
    in_flight: int = 6
    kill_rate: float = 100.0
    back_s: float = 60.0


REHEARSAL = Sizes(
    # With fewer, the CPU compares the matches of a filter.
    rows=90_000,
    large_rows=5_000,
    build_rows=12_000,
    kill_rows=5_000,
    cpu_build_s=5.0,
    seconds=0.8,
    texts=32,
    batch=8,
    routers=1,
    processes=1,
    in_flight=2,
    kill_rate=5.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A run.

    card: Limits of the card. folder: For snapshots and vectors; the parts remove what they write.
    rehearsal: Whether the CPU stands in for the GPU.
    """

    card: Card
    sizes: Sizes
    folder: Path
    seed: int = 0
    rehearsal: bool = False

    @property
    def device(self) -> str:
        """The torch device that holds vectors."""
        return "cpu" if self.rehearsal else GPU

    def service(
        self, module: str, arguments: Sequence[str], services: Sequence[str]
    ) -> AbstractAsyncContextManager[ServiceProcess]:
        """Runs a service on the GPU for the duration of the block.

        Args:
            module: For example "retrieval".
            arguments: Its arguments, without the device.
            services: Full proto names of services that must be ready.
        """
        words = [*arguments, "--device", GPU]
        if self.rehearsal:
            module, words = _STAND_IN, [module, *words]
        return service_process(
            module, words, ready_services=services, ready_timeout_s=_READY_S, name=module
        )


def metric_total(port: int, name: str) -> float:
    """Returns a metric of a service of this machine, summed over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith((f"{name} ", f"{name}{{"))
    )
