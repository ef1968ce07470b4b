"""Jobs of the ingest queue: progress while they run, a summary and reasons at the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from nearline import contract as c
from nearline.clients import IngestClient
from nearline.durations import RemainingTime
from nearline.errors import NotReady
from nearline.retry import retry_while_overloaded
from nearline_cli.terminal import output

if TYPE_CHECKING:
    from nearline_cli.inputs.submitter import JobCallback

TenantOption = Annotated[str, typer.Option(metavar="NAME", help="Only of this tenant.")]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, metavar="N", help="Maximum number to show.")
]
_R = TypeVar("_R")
_Page = TypeVar("_Page", c.JobPage, c.ResultPage, c.DeadLetterPage)
NEEDS_REDIS = "nearline up runs the queue unless it has --no-redis"
_LINE_EVERY_S = 5.0
_REASONS = 3
_REASON_CHARACTERS = 160


def ask_ingest(address: str, read: Callable[[IngestClient], Awaitable[_R]]) -> _R:
    """Calls the ingest service at an address, and returns the result."""

    async def run() -> _R:
        async with ingest_client(address) as client:
            return await read(client)

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def ingest_client(address: str) -> AsyncIterator[IngestClient]:
    """Yields a client of the ingest service; if nothing is there, the error says what it needs."""
    async with IngestClient(address) as client:
        try:
            yield client
        except NotReady as error:
            # Other errors come from the service itself.
            hint = f"; {NEEDS_REDIS}" if error.message.startswith(address) else ""
            raise error.with_message(error.message + hint) from error


class JobThroughput:
    """Measures how many documents of a job are finished per second.

    left: The time that is left; unknown while more documents are being added.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._before = 0
        self.left = RemainingTime()

    def of(self, job: c.Job) -> float:
        """Returns documents per second since the first call."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._before = now, ended_documents(job)
        if not job.open:
            self.left.update(ended_documents(job) - self._before, job.documents - self._before)
        # Shorter times would make the rate meaningless.
        return (ended_documents(job) - self._before) / max(now - self._began, 1.0)


def ended_documents(job: c.Job) -> int:
    """Returns the number of documents of a job that have ended."""
    return job.indexed + job.superseded + job.dead + job.cancelled


@contextlib.contextmanager
def job_bar(*, as_json: bool) -> Iterator[JobCallback]:
    """Yields a callback that shows the progress of a job: a bar on a terminal, lines elsewhere.

    With JSON output, it shows nothing.
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

    from nearline_cli.terminal.remaining_column import RemainingColumn

    with rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[counts]}"),
        rich.TimeElapsedColumn(),
        RemainingColumn(),
        console=output.console(error=True),
    ) as bars:
        pace = JobThroughput()
        task = bars.add_task("", total=None, counts="", left=pace.left)

        def show(job: c.Job) -> None:
            bars.update(
                task,
                description=job.state.value,
                # The total is unknown while more documents are being added.
                total=None if job.open else job.documents,
                completed=ended_documents(job),
                counts=_counts(job, pace),
            )

        yield show


def _lines() -> JobCallback:
    pace = JobThroughput()
    reported = time.monotonic()

    def show(job: c.Job) -> None:
        nonlocal reported
        shown = _counts(job, pace)
        if time.monotonic() - reported >= _LINE_EVERY_S:
            reported = time.monotonic()
            left_s = pace.left.seconds()
            left = "" if left_s is None or job.ended else f", {left_s:,.0f} s left"
            output.print_note(f"{job.state.value}: {shown}{left}")

    return show


def _counts(job: c.Job, pace: JobThroughput) -> str:
    parts = [f"{job.sources:,} submitted", f"{job.indexed:,} indexed", f"{job.dead:,} dead"]
    return ", ".join((*parts, f"{pace.of(job):,.0f} documents/s"))


def job_record(job: c.Job) -> dict[str, object]:
    """Returns a job as a JSON object."""
    return output.json_record(asdict(job))


def job_summary(job: c.Job, seconds: float | None = None) -> str:
    """Returns the outcome of a job on one line.

    Args:
        job: The job.
        seconds: Time spent on it. Optional; adds the throughput.
    """
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
    """Returns the reason of a failure on one line."""
    return output.one_line(result.message, _REASON_CHARACTERS)


async def first_dead_letters(client: IngestClient, job_id: str) -> list[c.DeadLetter]:
    """Returns the first few dead letters of a job."""
    return await take_first(iterate_dead_letters(client, job_id=job_id), _REASONS)


async def take_first(items: AsyncIterator[_R], limit: int) -> list[_R]:
    """Returns the first items, at most `limit`, which must be at least 1."""
    first: list[_R] = []
    async for item in items:
        first.append(item)
        if len(first) == limit:
            break
    return first


async def iterate_pages(read: Callable[[str], Awaitable[_Page]]) -> AsyncIterator[_Page]:
    """Yields every page of a list.

    Args:
        read: Returns the page of a token; an empty token means the first page.
    """
    token = ""
    while True:
        page = await retry_while_overloaded(partial(read, token))
        yield page
        token = page.token
        if not token:
            return


async def iterate_dead_letters(
    client: IngestClient, *, tenant: str = "", job_id: str = "", with_source: bool = False
) -> AsyncIterator[c.DeadLetter]:
    """Yields dead letters, oldest first."""
    async for page in iterate_pages(
        lambda token: client.dead_letters(
            tenant=tenant, job_id=job_id, with_source=with_source, token=token
        )
    ):
        for letter in page.letters:
            yield letter


def print_dead_letters(job: c.Job, dead: Sequence[c.DeadLetter]) -> None:
    """Prints why documents of a job are dead letters, and the next steps."""
    for letter in dead:
        output.print_note(f"  {letter.result.document_id}: {failure_reason(letter.result)}")
    if job.dead > len(dead):
        output.print_note(f"  … and {job.dead - len(dead):,} more")
    output.print_note(
        f"list all: nearline letters list --job {job.job_id}; once the cause is fixed: "
        f"nearline letters requeue --all --job {job.job_id}"
    )
