"""Jobs of the queue as people see them: a bar while they run, a line and reasons at the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from nearline import contract as c
from nearline.clients import IngestClient
from nearline_cli.terminal import output

if TYPE_CHECKING:
    from nearline_cli.inputs.submitter import JobCallback

TenantOption = Annotated[str, typer.Option(metavar="NAME", help="Only those of this tenant.")]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, metavar="N", help="Most of them.")
]
_R = TypeVar("_R")
_Page = TypeVar("_Page", c.JobPage, c.ResultPage, c.DeadLetterPage)
_LINE_EVERY_S = 5.0
_REASONS = 3
_REASON_CHARACTERS = 160


def ask_ingest(address: str, read: Callable[[IngestClient], Awaitable[_R]]) -> _R:
    """Asks the ingest service at an address something, and gives its answer."""

    async def run() -> _R:
        async with IngestClient(address) as client:
            return await read(client)

    return asyncio.run(run())


class JobThroughput:
    """How fast documents of a job end, since it was first looked at."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._before = 0

    def of(self, job: c.Job) -> float:
        """Returns documents in a second."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._before = now, ended_documents(job)
        # At once, a second stands for the time that is too short to say anything.
        return (ended_documents(job) - self._before) / max(now - self._began, 1.0)


def ended_documents(job: c.Job) -> int:
    """Returns how many documents of a job have ended."""
    return job.indexed + job.superseded + job.dead + job.cancelled


@contextlib.contextmanager
def job_bar(*, as_json: bool) -> Iterator[JobCallback]:
    """Yields what shows a job as it goes on: a bar on a terminal, lines elsewhere.

    Programs are shown nothing.
    """
    if as_json:
        yield lambda job: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextlib.contextmanager
def _bar() -> Iterator[JobCallback]:
    from rich import progress as rich

    with rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[counts]}"),
        rich.TimeElapsedColumn(),
        console=output.console(error=True),
    ) as bars:
        task = bars.add_task("", total=None, counts="")
        pace = JobThroughput()

        def show(job: c.Job) -> None:
            bars.update(
                task,
                description=job.state.value,
                # While more is added, what there is is not the whole.
                total=None if job.open else job.documents,
                completed=ended_documents(job),
                counts=_counts(job, pace),
            )

        yield show


def _lines() -> JobCallback:
    pace = JobThroughput()
    told = time.monotonic()

    def show(job: c.Job) -> None:
        nonlocal told
        shown = _counts(job, pace)
        if time.monotonic() - told >= _LINE_EVERY_S:
            told = time.monotonic()
            output.print_note(f"{job.state.value}: {shown}")

    return show


def _counts(job: c.Job, pace: JobThroughput) -> str:
    parts = [f"{job.sources:,} submitted", f"{job.indexed:,} indexed", f"{job.dead:,} dead"]
    return ", ".join((*parts, f"{pace.of(job):,.0f} documents/s"))


def job_record(job: c.Job) -> dict[str, object]:
    """Returns a job as JSON can hold it."""
    return output.json_record(asdict(job))


def job_summary(job: c.Job, seconds: float | None = None) -> str:
    """Says in a line what became of a job. seconds: That it was worked on; None: is not told."""
    counts = {
        "indexed": job.indexed,
        "superseded": job.superseded,
        "dead": job.dead,
        "cancelled": job.cancelled,
        "left": job.left,
    }
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    line = f"job {job.job_id} {job.state.value}: {', '.join(parts) or 'no documents'}"
    if seconds is None:
        return line
    return (
        f"{line} in {seconds:.1f} s, {ended_documents(job) / max(seconds, 1e-3):,.0f} documents/s"
    )


def failure_reason(result: c.IngestResult) -> str:
    """Returns the reason of a result on one line."""
    return output.one_line(result.message, _REASON_CHARACTERS)


async def first_dead_letters(client: IngestClient, job_id: str) -> list[c.DeadLetter]:
    """Returns the first few dead letters of a job."""
    return await take_first(iterate_dead_letters(client, job_id=job_id), _REASONS)


async def take_first(found: AsyncIterator[_R], most: int) -> list[_R]:
    """Returns so many of what is found, or all where there are fewer; most: 1 or more."""
    first: list[_R] = []
    async for one in found:
        first.append(one)
        if len(first) == most:
            break
    return first


async def iterate_pages(read: Callable[[str], Awaitable[_Page]]) -> AsyncIterator[_Page]:
    """Yields every page of a list; read: Gives the page that a token names, empty: the first."""
    token = ""
    while True:
        page = await read(token)
        yield page
        token = page.token
        if not token:
            return


async def iterate_dead_letters(
    client: IngestClient, *, tenant: str = "", job_id: str = "", with_source: bool = False
) -> AsyncIterator[c.DeadLetter]:
    """Yields dead letters, oldest first, page by page."""
    async for page in iterate_pages(
        lambda token: client.dead_letters(
            tenant=tenant, job_id=job_id, with_source=with_source, token=token
        )
    ):
        for letter in page.letters:
            yield letter


def print_dead_letters(job: c.Job, dead: Sequence[c.DeadLetter]) -> None:
    """Says why documents of a job are dead letters, and what can be done."""
    for letter in dead:
        output.print_note(f"  {letter.result.document_id}: {failure_reason(letter.result)}")
    if job.dead > len(dead):
        output.print_note(f"  … and {job.dead - len(dead):,} more")
    output.print_note(
        f"all of them: nearline jobs dead --job {job.job_id}; once the cause is mended: "
        f"nearline jobs requeue --all --job {job.job_id}"
    )
