"""Selection of the executor by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from index_builder.execution.executor import Executor, LocalExecutor
from index_builder.options.devices import CPU, check_gpu_share
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from embedding.settings import EmbeddingSettings

EXECUTORS = ("local", "ray")


@contextlib.contextmanager
def open_executor(
    name: str,
    ray_address: str,
    embedding: Callable[[], EmbeddingSettings],
    gpu_share: float = 1.0,
) -> Iterator[Executor]:
    """Yields an executor for the block; imports Ray only if it is needed.

    Args:
        name: "local" or "ray".
        ray_address: Address of a cluster, host:port or "auto"; empty starts one on this machine.
        embedding: Returns the settings of the model that workers load.
        gpu_share: GPUs of a worker of a cluster that loads the model; 0 if it uses none.
    Raises: InvalidRequest. Unsupported: Ray is not installed. NotReady: the cluster cannot be
        reached.
    """
    if name not in EXECUTORS:
        raise InvalidRequest(
            f"executor is {name!r}; use one of {', '.join(EXECUTORS)}", field="executor"
        )
    check_gpu_share(gpu_share)
    if name == "local":
        if ray_address:
            raise InvalidRequest(
                f"ray_address {ray_address} needs executor ray, but it is local; add --executor "
                "ray, or remove --ray-address",
                field="ray_address",
            )
        yield LocalExecutor()
        return
    from index_builder.execution.in_process_embedder import InProcessModel
    from index_builder.execution.ray_cluster import cluster
    from index_builder.execution.ray_executor import RayExecutor

    with cluster(ray_address):
        settings = embedding()
        yield RayExecutor(
            InProcessModel(settings), gpu_share=0.0 if settings.device == CPU else gpu_share
        )
