"""What commands that build share: the embedding service, the executor, and how far they are."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.clients import EmbeddingClient
from nearline.errors import InvalidRequest
from nearline_cli.local.processes import embedding_process
from nearline_cli.terminal import output

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

    from embedding.settings import EmbeddingSettings
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress

ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="local|ray",
        help="What does the work: this machine, or workers all over a Ray cluster.",
    ),
]
RayAddressOption = Annotated[
    str,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT|auto",
        help="Ray cluster; auto: the one that this machine belongs to. \\[default: one is started "
        "on this machine]",
    ),
]


@contextlib.contextmanager
def command_executor(name: str, ray_address: str, *, dimensions: int = 0) -> Iterator[Executor]:
    """Yields the executor of a command for the block; see `open_executor`.

    Args:
        dimensions: Numbers that workers keep of each vector; 0: their settings say.
    """
    from index_builder.execution.executor_factory import open_executor

    with open_executor(name, ray_address, lambda: _workers_model(dimensions)) as opened:
        yield opened


def _workers_model(dimensions: int) -> EmbeddingSettings:
    """Returns the settings that the embedding service started by a command has, too."""
    from embedding.settings import EmbeddingSettings
    from nearline.settings import load_from_process

    words = ("--dimensions", str(dimensions)) if dimensions else ()
    return load_from_process(EmbeddingSettings, words)


@contextlib.asynccontextmanager
async def open_embedder(
    address: str, *, quiet: bool = False, dimensions: int = 0, store: str = ""
) -> AsyncIterator[EmbeddingClient]:
    """Yields a client of the embedding service at an address, or of one started for the block.

    Args:
        address: Of the service; empty: one is started.
        quiet: Say nothing of that.
        dimensions: Numbers kept of each vector by the one that is started; 0: its settings say.
        store: Store whose models its settings may name; empty: its settings say.
    Raises: InvalidRequest: an address and dimensions.
    """
    if address and dimensions:
        raise InvalidRequest(
            f"--dimensions {dimensions} is of an embedding service that is started here, and "
            f"--embedding names {address}; leave one out, or start that one with --dimensions",
            field="dimensions",
        )
    if address:
        async with EmbeddingClient(address) as client:
            yield client
        return
    if not quiet:
        print_note("starting the embedding service (the first time it prepares the model)")
    words = [*(("--dimensions", str(dimensions)) if dimensions else ())]
    words += ("--store", store) if store else ()
    async with embedding_process(words) as service, EmbeddingClient(service.address) as client:
        yield client


class _ProgressBars:
    """Shows a bar per stage with rate and time left; a `Progress`."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._done = 0

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Adds a bar."""
        self._done = 0
        self._task = self._bars.add_task(stage, total=total, unit=unit, rate="")

    def advance(self, units: int) -> None:
        """Moves the bar."""
        assert self._task is not None
        self._done += units
        self._bars.update(self._task, advance=units)
        task = self._bars.tasks[self._task]
        if task.elapsed:
            self._bars.update(self._task, rate=f"{self._done / task.elapsed:,.0f}/s")

    def end(self, seconds: float) -> None:
        """Fills the bar and stops its clock."""
        assert self._task is not None
        self._bars.update(self._task, total=self._done or 1, completed=self._done or 1)
        self._bars.stop_task(self._task)


@contextlib.contextmanager
def open_progress(as_json: bool) -> Iterator[Progress]:
    """Yields bars on a terminal, lines elsewhere, nothing for programs."""
    from index_builder.execution.progress import NoProgress, TextProgress

    if as_json:
        yield NoProgress()
        return
    if not sys.stderr.isatty():
        yield TextProgress(print_note)
        return
    from rich import progress as rich

    with rich.Progress(
        rich.TextColumn("{task.description:<8}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[unit]}"),
        rich.TextColumn("{task.fields[rate]}", style="progress.percentage"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=output.console(error=True),
    ) as bars:
        yield _ProgressBars(bars)


def print_note(text: str) -> None:
    """Writes a line to standard error, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
