"""`nearline jobs`: jobs of the ingest queue, their results, and the state of the queue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients import IngestClient
from nearline_cli.commands import dead_letters
from nearline_cli.terminal import durations, options, output
from nearline_cli.views import job_view

_PAGE = 1_000

app = typer.Typer(no_args_is_help=True, help="Follow and cancel jobs of the ingest queue.")
_JobArgument = Annotated[str, typer.Argument(metavar="ID", help="Name of the job.")]


# Their names before there was `nearline letters`.
app.command("dead", hidden=True)(dead_letters.list_letters)
app.command("requeue", hidden=True)(dead_letters.requeue)
app.command("delete", hidden=True)(dead_letters.delete)


@app.command("list")
def list_jobs(
    tenant: job_view.TenantOption = "",
    collection: options.OnlyCollectionOption = "",
    callback_id: Annotated[
        str, typer.Option(metavar="TEXT", help="Only jobs with this callback id.")
    ] = "",
    state: Annotated[
        list[c.JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")
    ] = None,
    limit: job_view.LimitOption = 50,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """List jobs, newest first."""

    async def read(client: IngestClient) -> list[c.Job]:
        found: list[c.Job] = []

        async def next_page(token: str) -> c.JobPage:
            return await client.jobs(
                tenant=tenant,
                collection=collection,
                callback_id=callback_id,
                states=state or (),
                page_size=min(_PAGE, limit - len(found)),
                token=token,
            )

        async for page in job_view.iterate_pages(next_page):
            found += page.jobs
            if len(found) == limit:
                break
        return found

    jobs = job_view.ask_ingest(address, read)
    if as_json:
        for job in jobs:
            output.print_json(job_view.job_record(job))
        return
    names = ("job", "state", "tenant", "collection", "submitted", "documents", "indexed", "dead")
    output.print_table((*names, "left"), [_row(job) for job in jobs])


@app.command()
def show(
    job_id: _JobArgument,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Show a job."""
    record = job_view.job_record(job_view.ask_ingest(address, lambda client: client.job(job_id)))
    output.print_figures(record, as_json=as_json, names=("field", "value"))


@app.command()
def results(
    job_id: _JobArgument,
    outcome: Annotated[
        list[c.IngestOutcome] | None, typer.Option(help="Only this outcome; may be repeated.")
    ] = None,
    limit: job_view.LimitOption = 1_000_000,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the results of a job, in the order of submission."""
    wanted = set(outcome or c.IngestOutcome)

    async def read(client: IngestClient) -> list[c.IngestResult]:
        found: list[c.IngestResult] = []
        async for page in job_view.iterate_pages(
            lambda token: client.results(job_id, page_size=_PAGE, token=token)
        ):
            found += [result for result in page.results if result.outcome in wanted]
            if len(found) >= limit:
                break
        return found[:limit]

    found = job_view.ask_ingest(address, read)
    if as_json:
        for one in found:
            output.print_json(output.json_record(asdict(one)))
        return
    rows = [
        (
            one.place,
            one.document_id,
            one.outcome.value,
            one.version,
            one.attempts,
            job_view.failure_reason(one),
        )
        for one in found
    ]
    output.print_table(("place", "document", "outcome", "version", "attempts", "why"), rows)


@app.command()
def wait(
    job_id: _JobArgument,
    timeout: Annotated[
        float,
        typer.Option(
            parser=durations.read_duration,
            metavar=durations.METAVAR,
            help="Timeout. \\[default: none; wait until the job has ended]",
            show_default=False,
        ),
    ] = 0.0,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Wait until a job has ended.

    For example: nearline jobs wait JOB --timeout 10m

    Exits with 1 if some of its documents were not indexed.
    """
    from nearline_cli.inputs.submitter import wait_for_job

    async def read(client: IngestClient) -> tuple[c.Job, list[c.DeadLetter]]:
        # Fails at once if the job does not exist, or the service is away.
        await client.job(job_id)
        with job_view.job_bar(as_json=as_json) as bar:
            job = await wait_for_job(client, job_id, bar, timeout or None, quiet=as_json)
        return job, await job_view.first_dead_letters(client, job_id) if job.dead else []

    job, dead = job_view.ask_ingest(address, read)
    output.print_result(job_view.job_record(job), job_view.job_summary(job), as_json=as_json)
    if job.dead and not as_json:
        job_view.print_dead_letters(job, dead)
    if job.state is not c.JobState.SUCCEEDED:
        raise typer.Exit(1)


@app.command()
def cancel(
    job_id: _JobArgument,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Cancel the documents of a job that are not processed yet; indexed ones stay."""
    job = job_view.ask_ingest(address, lambda client: client.cancel(job_id))
    output.print_result(job_view.job_record(job), job_view.job_summary(job), as_json=as_json)


@app.command()
def queue(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the state of the queue and its workers."""
    state = job_view.ask_ingest(address, lambda client: client.queue())
    if as_json:
        output.print_json({**output.json_record(asdict(state)), "lag": state.lag})
        return
    figures = {
        "waiting": state.waiting,
        "in progress": state.in_hand,
        "waiting for a retry": state.delayed,
        "dead letters": state.dead,
        "oldest waiting for": f"{state.oldest_age_s:,.1f} s",
        "documents/s": f"{state.documents_per_s:,.1f}",
        "size": output.format_bytes(state.bytes),
        "workers": len(state.workers),
    }
    output.print_table(("queue", "now"), figures.items())
    rows = [
        (worker.worker_id, worker.in_hand, worker.documents_per_s, worker.start_time.isoformat())
        for worker in state.workers
    ]
    if rows:
        output.print_table(("worker", "in progress", "documents/s", "since"), rows)


def _row(job: c.Job) -> list[object]:
    submitted = job.create_time.isoformat(timespec="seconds")
    return [
        *(job.job_id, job.state.value, job.tenant, job.collection, submitted),
        *(job.documents, job.indexed, job.dead, job.left),
    ]
