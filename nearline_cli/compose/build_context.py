"""The embedding service and the executor that build commands share."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.clients import EmbeddingClient
from nearline.errors import DeadlineExceeded, InvalidRequest, NotReady
from nearline.retry import retry
from nearline_cli.local.processes import embedding_process
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import waiting_note

if TYPE_CHECKING:
    from embedding.settings import EmbeddingSettings
    from index_builder.execution.executor import Executor

# A service that is being started may need this long.
_FIRST_REPLY_S = 15.0
_AUTO = "auto"


class ExecutorOptions(NamedTuple):
    """Options that choose where the work of a command runs."""

    executor: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="Where the work runs: on this machine, or on the workers of a Ray cluster.",
        ),
    ] = "local"
    ray_address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT|auto",
            help="Address of the Ray cluster; auto: the cluster of this machine. "
            "\\[default: a cluster is started on this machine]",
        ),
    ] = ""
    ray_gpu_share: Annotated[
        float,
        typer.Option(
            metavar="GPUS",
            help="GPUs of a Ray worker that loads the model: a fraction such as 0.25, which lets "
            "four workers share a GPU, or a whole number; 0: workers use no GPU.",
        ),
    ] = 1.0


@contextlib.contextmanager
def command_executor(
    options: ExecutorOptions, *, dimensions: int = 0, device: str = _AUTO
) -> Iterator[Executor]:
    """Yields the executor of a command for the duration of the block; see `open_executor`.

    Args:
        options: Which executor.
        dimensions: Number of components of each vector that workers keep; 0 leaves it to their
            settings.
        device: Device of the model in workers that have no GPU from Ray; auto leaves it to their
            settings.
    """
    from index_builder.execution.executor_factory import open_executor

    with open_executor(
        options.executor,
        options.ray_address,
        lambda: _worker_settings(dimensions, device),
        options.ray_gpu_share,
    ) as executor:
        yield executor


def _worker_settings(dimensions: int, device: str) -> EmbeddingSettings:
    """Returns the settings of the embedding model, as the service of a command has them."""
    from embedding.settings import EmbeddingSettings
    from nearline.settings import load_from_process

    return load_from_process(EmbeddingSettings, _model_words(dimensions, device))


def _model_words(dimensions: int, device: str) -> list[str]:
    """Returns the options of an embedding service."""
    words = ["--dimensions", str(dimensions)] if dimensions else []
    return words + ([] if device == _AUTO else ["--device", device])


@contextlib.asynccontextmanager
async def open_embedder(
    address: str,
    *,
    quiet: bool = False,
    dimensions: int = 0,
    store: str = "",
    device: str = _AUTO,
) -> AsyncIterator[EmbeddingClient]:
    """Yields a client of embedding services of one model, or of one started for the block.

    Args:
        address: Addresses of the services, separated by commas. If empty, a service is started.
        quiet: Whether to report nothing on standard error.
        dimensions: Number of components of each vector that a started service keeps; 0 leaves it to
            its settings.
        store: Store whose models the settings of a started service may name. Optional.
        device: Device of a started service; auto leaves it to its settings.
    Raises:
        InvalidRequest: Both an address and dimensions are given, or services of several models.
        SettingsError: An address is not host:port.
        NotReady, DeadlineExceeded: No service answers at the addresses.
    """
    # Imported late: help texts need neither.
    from retrieval.embedders.clients import embedding_client
    from retrieval.shards.topology import parse_addresses

    if address and dimensions:
        raise InvalidRequest(
            f"--dimensions {dimensions} applies to an embedding service that is started here, but "
            f"--embedding names {address}; leave one out, or start that service with --dimensions",
            field="dimensions",
        )
    if addresses := parse_addresses(address, "--embedding"):
        async with embedding_client(addresses) as client:
            with waiting_note(address, quiet=quiet):
                await retry(
                    client.info,
                    on=(NotReady, DeadlineExceeded),
                    delays=itertools.repeat(1.0),
                    timeout_s=_FIRST_REPLY_S,
                )
            yield client
        return
    if not quiet:
        output.print_note("starting the embedding service (the first start prepares the model)")
    words = _model_words(dimensions, device)
    words += ("--store", store) if store else ()
    async with embedding_process(words) as service, EmbeddingClient(service.address) as client:
        yield client
