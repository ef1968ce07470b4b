"""A service whose GPU the CPU stands in for: python -m benchmarks.gpu_stand_in MODULE ….

For rehearsals. The service runs as it would with a GPU: its workers are processes of their own, and
can be killed. With the argument WORKER it is the worker of the embedding service.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from nearline.workers.process import Message, WorkerCommand, serve_calls

_MODULE = "benchmarks.gpu_stand_in"
_WORKER = "WORKER"
_MEMORY_BYTES = 1 << 30


def run_service(module: str, arguments: Sequence[str]) -> None:
    """Runs a service with the stand-in for the GPU."""
    import embedding.devices

    embedding.devices.free_bytes = lambda: (_MEMORY_BYTES,)
    if module == "embedding":
        import embedding.gpu.pool

        embedding.gpu.pool.worker_command = lambda: WorkerCommand(
            _MODULE, [_WORKER], channels=embedding.gpu.pool.BATCHES_PER_GPU + 1
        )
    else:
        import retrieval.index.gpu.gpu_pool as pool
        from retrieval.index.gpu.device import GpuDevice

        device = "cpu"
        pool.open_pool = lambda *_: pool.GpuPool([GpuDevice(device, memory_bytes=_MEMORY_BYTES)])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def run_worker() -> None:
    """Answers the calls of the embedding service, on the CPU."""
    from embedding.gpu.worker import GpuWorker

    worker = GpuWorker()

    def load(call: Message) -> Message:
        return worker.load(Message({**call.values, "device": "cpu"}))

    serve_calls({"load": load, "run": worker.run})


if __name__ == "__main__":
    if sys.argv[1] == _WORKER:
        run_worker()
    else:
        run_service(sys.argv[1], sys.argv[2:])
