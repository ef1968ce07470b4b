"""Which executor does the work: the one that was named, opened for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from index_builder.execution.executor import Executor, LocalExecutor
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from embedding.settings import EmbeddingSettings

EXECUTORS = ("local", "ray")


@contextlib.contextmanager
def open_executor(
    name: str, ray_address: str, embedding: Callable[[], EmbeddingSettings]
) -> Iterator[Executor]:
    """Yields an executor for the block. Ray is imported only where it is asked for.

    Args:
        name: "local" or "ray".
        ray_address: Of a cluster, host:port or "auto"; empty: one is started on this machine.
        embedding: Gives the settings of the model that workers load themselves.
    Raises: InvalidRequest. Unsupported: Ray is not installed. NotReady: there is no such cluster.
    """
    if name not in EXECUTORS:
        raise InvalidRequest(
            f"executor is {name!r}; {' and '.join(EXECUTORS)} are known", field="executor"
        )
    if name == "local":
        if ray_address:
            raise InvalidRequest(
                f"ray_address {ray_address} is for executor ray, this one is local; add --executor "
                "ray, or leave out --ray-address",
                field="ray_address",
            )
        yield LocalExecutor()
        return
    from index_builder.execution.in_process_embedder import InProcessModel
    from index_builder.execution.ray_cluster import cluster
    from index_builder.execution.ray_executor import RayExecutor

    with cluster(ray_address):
        yield RayExecutor(InProcessModel(embedding()))
