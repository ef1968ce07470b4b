"""`nearline ingest`: submits files, rows and addresses to the queue, and shows the results."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nearline import contract as c
from nearline.clients import IngestClient
from nearline.counts import counted
from nearline.durations import Duration, parse_duration
from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NearlineError,
    NotReady,
    first_of,
)
from nearline_cli.inputs.item_columns import ItemColumns
from nearline_cli.inputs.rejects import Rejects
from nearline_cli.inputs.skipped_files import print_skipped, skipped_record
from nearline_cli.terminal import durations, options, output
from nearline_cli.views import job_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearline_cli.inputs.sources import FoundSources, NamedSource
    from nearline_cli.inputs.submitter import JobCallback, JobOptions, Submitter

# Errors after which a request may have been carried out all the same.
_UNCERTAIN = (DeadlineExceeded, InternalError, NotReady)


def ingest(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|DIR|URL|-…",
            help="Documents to submit: .jsonl .csv .tsv .parquet with one document per row; .txt "
            ".md .html .pdf, one document each; folders of these; addresses (file:// s3:// gs:// "
            "az:// http:// https://) that workers may read; -: JSON lines from standard input.",
        ),
    ],
    tenant: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Tenant of the job. Tenants share the workers evenly. \\[default: yours]",
        ),
    ] = "",
    priority: Annotated[
        c.JobPriority, typer.Option(help="Priority among the tenant's jobs.")
    ] = c.JobPriority.NORMAL,
    callback_id: Annotated[
        str, typer.Option(metavar="TEXT", help="Text by which you recognise the job later.")
    ] = "",
    job: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Name of the job; an existing job continues where it stopped, given the same "
            "files. \\[default: a new job]",
        ),
    ] = "",
    result_ttl: Annotated[
        str,
        typer.Option(
            metavar=durations.METAVAR,
            help="How long results are kept after the job has ended. "
            "\\[default: the service's setting, a day]",
        ),
    ] = "",
    *,
    columns: ItemColumns,
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            parser=durations.read_wait,
            metavar=durations.METAVAR,
            help="Wait at most so long until the job has ended. \\[default: as long as it takes]",
            show_default=False,
        ),
    ] = math.inf,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until the job has ended.")
    ] = False,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Submit documents to the ingest queue, and show their progress.

    For example: nearline ingest docs/ catalogue.jsonl

    Submitted documents are durable: workers process them even if this command is interrupted.
    Malformed rows are reported and left out.
    """
    # Imported late: these load the readers.
    from nearline_cli.inputs.sources import find_sources
    from nearline_cli.inputs.submitter import JobOptions

    job_options = JobOptions(
        job_id=job or c.new_job_id(),
        collection=collection,
        tenant=tenant,
        priority=priority,
        callback_id=callback_id,
        result_ttl_s=parse_duration(result_ttl, "--result-ttl") if result_ttl else None,
    )
    found = find_sources(what)
    _check(found.sources, job_options)
    if not as_json:
        print_skipped(found.skipped)
    run = _Run(address, job_options, Rejects(as_json), 0.0 if no_wait else wait)
    try:
        asyncio.run(run.run(found, columns))
    except KeyboardInterrupt:
        output.print_note(f"interrupted; {_how_to_continue(run.submitter, job_options.job_id)}")
        raise
    except NearlineError as error:
        shown = _with_remedy(error, run.submitter, job_options.job_id)
        if shown is error:
            raise
        raise shown from error
    run.conclude()


class _Run:
    """One run of the command."""

    def __init__(
        self, address: str, job_options: JobOptions, rejects: Rejects, wait_s: float
    ) -> None:
        self._address = address
        self._options = job_options
        self._rejects = rejects
        self._wait_s = wait_s
        self._skipped: Sequence[str] = ()
        self._dead: Sequence[c.DeadLetter] = ()
        self._start = time.monotonic()
        self.submitter: Submitter | None = None

    @property
    def job(self) -> c.Job | None:
        """The job, or None before it exists."""
        return None if self.submitter is None else self.submitter.job

    async def run(self, found: FoundSources, columns: ItemColumns) -> None:
        """Submits the documents, and waits for the job if requested."""
        from nearline_cli.inputs.served_attributes import declare_served
        from nearline_cli.inputs.sources import NamedFile, read_sources
        from nearline_cli.inputs.submitter import Submitter

        self._skipped = found.skipped
        async with job_view.ingest_client(self._address) as client:
            with job_view.job_bar(as_json=self._rejects.as_json) as show:
                quiet = self._rejects.as_json
                submitter = self.submitter = Submitter(client, self._options, show, quiet=quiet)
                await submitter.look()
                tables = [one.name for one in found.sources if isinstance(one, NamedFile)]
                collection = self._options.collection
                columns = await declare_served(columns, self._address, collection, tables)
                sources = read_sources(found, columns, self._rejects)
                try:
                    async with asyncio.TaskGroup() as group:
                        watching = group.create_task(self._watch(client, submitter, show))
                        await submitter.submit(sources)
                        if submitter.job is None or not self._wait_s:
                            watching.cancel()
                        else:
                            await self._ended(watching)
                except* NearlineError as failed:
                    raise first_of(failed) from None
            if self.job is not None and self.job.dead:
                self._dead = await job_view.first_dead_letters(client, self.job.job_id)

    async def _ended(self, watching: asyncio.Task[None]) -> None:
        """Waits for the end of the job. Raises DeadlineExceeded if it does not end in time."""
        limit_s = None if self._wait_s == math.inf else self._wait_s
        if not (await asyncio.wait((watching,), timeout=limit_s))[0]:
            raise DeadlineExceeded(f"the job did not end within {Duration(self._wait_s)}")

    async def _watch(self, client: IngestClient, submitter: Submitter, show: JobCallback) -> None:
        from nearline_cli.inputs.submitter import wait_for_job

        await submitter.began.wait()
        submitter.job = await wait_for_job(
            client, self._options.job_id, show, quiet=self._rejects.as_json
        )

    def conclude(self) -> None:
        """Reports the outcome; exits with 1 unless every document is indexed.

        Raises:
            InvalidRequest: There was nothing to submit.
        """
        job, rejects = self.job, self._rejects
        if job is None and not rejects.bad_count:
            raise InvalidRequest("no documents found; name files that contain some", field="what")
        spent_s = time.monotonic() - self._start
        if rejects.as_json:
            output.print_json(
                {
                    "job": None if job is None else job_view.job_record(job),
                    "refused": rejects.bad_count,
                    "refusals": rejects.bad,
                    "skipped": skipped_record(self._skipped),
                    "lists": rejects.list_records(),
                    "seconds": round(spent_s, 3),
                }
            )
        else:
            refused = f"; {rejects.bad_count:,} refused" if rejects.bad_count else ""
            line = "nothing was submitted" if job is None else job_view.job_summary(job, spent_s)
            output.console().print(f"{line}{refused}")
            if job is not None and job.dead:
                job_view.print_dead_letters(job, self._dead)
            if job is not None and not job.ended:
                output.print_note(f"to follow it: nearline jobs wait {job.job_id}")
        good = job is not None and (job.state is c.JobState.SUCCEEDED or not job.ended)
        if rejects.bad_count or not good:
            raise typer.Exit(1)


def _check(found: Sequence[NamedSource], job_options: JobOptions) -> None:
    """Raises InvalidRequest if the service would refuse this, before anything is sent."""
    from index_builder.ingest.records import Submission
    from index_builder.ingest.validation import check_submission

    urls: list[c.IngestSource] = [one for one in found if isinstance(one, c.SourceUrl)]
    # The service puts the tenant of the credential in place of an empty one.
    options = asdict(job_options) | {"tenant": job_options.tenant or c.DEFAULT_TENANT}
    ttl_s = options.pop("result_ttl_s")
    ttl_s = c.MAX_RESULT_TTL_S if ttl_s is None else ttl_s
    for at in range(0, len(urls) or 1, c.MAX_BATCH):
        sources = urls[at : at + c.MAX_BATCH] or [c.Item(id="any")]
        check_submission(Submission(**options, sources=sources, ttl_s=ttl_s))


def _with_remedy(error: NearlineError, submitter: Submitter | None, job_id: str) -> NearlineError:
    """Returns an error that says how to go on, if anything was or may have been submitted."""
    if submitter is None or not (submitter.job or submitter.sent):
        return error
    if submitter.job is None and not isinstance(error, _UNCERTAIN):
        return error  # A refusal leaves nothing behind.
    return error.with_message(f"{error.message}; {_how_to_continue(submitter, job_id)}")


def _how_to_continue(submitter: Submitter | None, job_id: str) -> str:
    if submitter is None or not (submitter.job or submitter.sent):
        return "nothing was submitted"
    job = submitter.job
    if job is None:
        return (
            f"it is not known whether job {job_id} received anything: run the same command with "
            f"--job {job_id} to continue"
        )
    if job.ended:
        return f"job {job_id} has ended: nearline jobs show {job_id}"
    if job.open:
        return (
            f"job {job_id} has {counted(job.sources, 'source')}: run the same command with --job "
            f"{job_id} to continue; nearline jobs wait {job_id} waits for the job so far, nearline "
            f"jobs cancel {job_id} cancels it"
        )
    return (
        f"job {job_id} is fully submitted, and workers continue with it: nearline jobs wait "
        f"{job_id} waits, nearline jobs cancel {job_id} cancels"
    )
