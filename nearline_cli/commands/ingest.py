"""`nearline ingest`: files, rows and addresses go to the queue; what became of them is shown."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from nearline import contract as c
from nearline.clients import IngestClient
from nearline.errors import InvalidRequest, NearlineError, first_of
from nearline_cli.inputs.rejects import Rejects
from nearline_cli.terminal import options, output
from nearline_cli.terminal.durations import parse_duration
from nearline_cli.views import job_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearline_cli.inputs.item_rows import ItemColumns
    from nearline_cli.inputs.sources import NamedSource
    from nearline_cli.inputs.submitter import JobCallback, JobOptions, Submitter


def ingest(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|DIR|URL|-…",
            help="What to submit: .jsonl .csv .tsv .parquet with a document on each row, .txt .md "
            ".html .pdf that are one each, folders of them, addresses (file:// s3:// gs:// az:// "
            "http:// https://) that workers may read; -: JSON lines of standard input.",
        ),
    ],
    tenant: Annotated[
        str,
        typer.Option(metavar="NAME", help="Whose turn it is: tenants share the workers evenly."),
    ] = c.DEFAULT_TENANT,
    priority: Annotated[
        c.JobPriority, typer.Option(help="Which of a tenant's jobs come first.")
    ] = c.JobPriority.NORMAL,
    callback_id: Annotated[
        str, typer.Option(metavar="TEXT", help="Anything by which you know the job again.")
    ] = "",
    job: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Name of the job; one that is there goes on where it is, given the same files. "
            "\\[default: a new one]",
        ),
    ] = "",
    result_ttl: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long results are kept once the job has ended: 90s, 10m, 24h, 7d. \\[default: "
            "as the service has it, a day]",
        ),
    ] = "",
    id_column: options.IdColumnOption = "",
    title_column: options.TitleColumnOption = "",
    text_column: options.TextColumnOption = "",
    vector_column: options.VectorColumnOption = "",
    expires_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of times after which an item is gone.")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return once the job has ended.")
    ] = True,
    address: options.IngestAddressOption = options.DEFAULT_INGEST_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Submit documents to the queue, and show how they are processed.

    What is submitted is durable, and workers go on with it, whatever becomes of this command. Rows
    that cannot be documents are told and left out.
    """
    # Imported late: they load the readers.
    from nearline_cli.inputs.item_rows import ItemColumns
    from nearline_cli.inputs.sources import find_sources
    from nearline_cli.inputs.submitter import JobOptions

    terms = JobOptions(
        job_id=job or c.new_job_id(),
        collection=collection,
        tenant=tenant,
        priority=priority,
        callback_id=callback_id,
        result_ttl_s=parse_duration(result_ttl, "--result-ttl") if result_ttl else None,
    )
    columns = ItemColumns(
        id=id_column,
        title=title_column,
        text=text_column,
        vector=vector_column,
        expires=expires_column,
    )
    found = find_sources(what)
    _check(found, terms)
    run = _Run(address, terms, Rejects(as_json), wait=wait)
    try:
        asyncio.run(run.run(found, columns))
    except KeyboardInterrupt:
        output.print_note(f"interrupted; {_how_to_go_on(run.submitter, terms.job_id)}")
        raise
    except NearlineError as error:
        if run.submitter is None or not (run.job or run.submitter.sent):
            raise
        raise type(error)(
            f"{error.message}; {_how_to_go_on(run.submitter, terms.job_id)}",
            field=error.field,
            retry_after_s=error.retry_after_s,
        ) from error
    run.conclude()


class _Run:
    """One run of the command. wait: Until the job has ended."""

    def __init__(self, address: str, terms: JobOptions, refusals: Rejects, *, wait: bool) -> None:
        self._address = address
        self._terms = terms
        self._refusals = refusals
        self._wait = wait
        self._dead: Sequence[c.DeadLetter] = ()
        self._start = time.monotonic()
        self.submitter: Submitter | None = None

    @property
    def job(self) -> c.Job | None:
        """The job; None before it is there."""
        return None if self.submitter is None else self.submitter.job

    async def run(self, found: Sequence[NamedSource], columns: ItemColumns) -> None:
        """Submits, and waits where that is wanted."""
        from nearline_cli.inputs.sources import read_sources
        from nearline_cli.inputs.submitter import Submitter

        async with IngestClient(self._address) as client:
            with job_view.job_bar(as_json=self._refusals.as_json) as show:
                submitter = self.submitter = Submitter(client, self._terms, show)
                await submitter.look()
                given = read_sources(found, columns, self._refusals)
                try:
                    async with asyncio.TaskGroup() as group:
                        watching = group.create_task(self._watch(client, submitter, show))
                        await submitter.submit(given)
                        if submitter.job is None or not self._wait:
                            watching.cancel()
                except* NearlineError as failed:
                    raise first_of(failed) from None
            if self.job is not None and self.job.dead:
                self._dead = await job_view.first_dead_letters(client, self.job.job_id)

    async def _watch(self, client: IngestClient, submitter: Submitter, show: JobCallback) -> None:
        from nearline_cli.inputs.submitter import wait_for_job

        await submitter.began.wait()
        submitter.job = await wait_for_job(client, self._terms.job_id, show)

    def conclude(self) -> None:
        """Tells how it ended; ends the command where not every document is indexed.

        Raises: InvalidRequest: there was nothing to submit.
        """
        job, refusals = self.job, self._refusals
        if job is None and not refusals.bad_count:
            raise InvalidRequest(
                "there are no documents in what was named; name files that have some", field="what"
            )
        spent_s = time.monotonic() - self._start
        if refusals.as_json:
            output.print_json(
                {
                    "job": None if job is None else job_view.job_record(job),
                    "refused": refusals.bad_count,
                    "refusals": refusals.bad,
                    "seconds": round(spent_s, 3),
                }
            )
        else:
            refused = f"; {refusals.bad_count:,} refused" if refusals.bad_count else ""
            line = "nothing was submitted" if job is None else job_view.job_summary(job, spent_s)
            output.console().print(f"{line}{refused}", markup=False)
            if job is not None and job.dead:
                job_view.print_dead_letters(job, self._dead)
            if job is not None and not job.ended:
                output.print_note(f"how far it is: nearline jobs wait {job.job_id}")
        good = job is not None and (job.state is c.JobState.SUCCEEDED or not job.ended)
        if refusals.bad_count or not good:
            raise typer.Exit(1)


def _check(found: Sequence[NamedSource], terms: JobOptions) -> None:
    """Raises InvalidRequest where the service would refuse this, before it has a part of it."""
    from index_builder.ingest.validation import check_submission

    urls = [one for one in found if isinstance(one, c.SourceUrl)]
    for at in range(0, len(urls) or 1, c.MAX_BATCH):
        check_submission(
            urls[at : at + c.MAX_BATCH] or [c.Item(id="any")],
            collection=terms.collection,
            tenant=terms.tenant,
            callback_id=terms.callback_id,
            job_id=terms.job_id,
            offset=0,
            result_ttl_s=terms.result_ttl_s,
        )


def _how_to_go_on(submitter: Submitter | None, job_id: str) -> str:
    if submitter is None or not (submitter.job or submitter.sent):
        return "nothing was submitted"
    job = submitter.job
    if job is None:
        return (
            f"whether job {job_id} has anything is not known: the same command with --job {job_id} "
            "goes on where it is"
        )
    if job.ended:
        return f"job {job_id} has ended: nearline jobs show {job_id}"
    if job.open:
        return (
            f"job {job_id} has {job.sources:,} sources: the same command with --job {job_id} goes "
            f"on from there; nearline jobs wait {job_id} waits for these, nearline jobs cancel "
            f"{job_id} cancels them"
        )
    return (
        f"all of job {job_id} is submitted, and workers go on with it: nearline jobs wait {job_id} "
        f"waits, nearline jobs cancel {job_id} cancels"
    )
