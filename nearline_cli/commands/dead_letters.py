"""`nearline letters`: documents of the queue that could not be processed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients import IngestClient
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline_cli.terminal import confirmation, options, output
from nearline_cli.views import job_view

_SOURCE_CHARACTERS = 120

app = typer.Typer(
    no_args_is_help=True,
    help="List, requeue and delete dead letters: documents that could not be processed.",
)

_LettersArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER…", help="Dead letters, as listed by nearline letters list."),
]
_AllFlag = Annotated[
    bool, typer.Option("--all", help="All dead letters, or all of --tenant and --job.")
]
_OfJobOption = Annotated[
    str, typer.Option("--job", metavar="ID", help="Only dead letters of this job.")
]


@app.command("list")
def list_letters(
    tenant: job_view.TenantOption = "",
    job: _OfJobOption = "",
    source: Annotated[
        bool, typer.Option("--source", help="Also show the submitted documents.")
    ] = False,
    limit: job_view.LimitOption = 50,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """List dead letters, oldest first: documents that could not be processed, and why."""

    async def read(client: IngestClient) -> list[c.DeadLetter]:
        letters = job_view.iterate_dead_letters(
            client, tenant=tenant, job_id=job, with_source=source
        )
        return await job_view.take_first(letters, limit)

    found = job_view.ask_ingest(address, read)
    if as_json:
        for one in found:
            output.print_json(_letter(one))
        return
    names = ["letter", "job", "tenant", "document", "attempts", "reason", "why"]
    rows = [
        [one.letter_id, one.job_id, one.tenant, one.result.document_id, one.result.attempts]
        + [one.result.reason, job_view.failure_reason(one.result)]
        + ([_shown(one.source)] if source else [])
        for one in found
    ]
    output.print_table([*names, *(["source"] if source else [])], rows)


@app.command()
def requeue(
    letters: _LettersArgument = None,
    every: _AllFlag = False,
    tenant: job_view.TenantOption = "",
    job: _OfJobOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Put dead letters back into the queue, as new jobs.

    They keep their original time: an item that changed after they were first submitted stays
    unchanged.
    """
    _check_choice(letters, every, tenant, job)

    async def put_back(client: IngestClient) -> list[c.Job]:
        jobs = []
        for part in await _parts(client, letters, tenant, job):
            jobs.append(await client.requeue(part))
            if not as_json:
                output.print_note(f"requeued {len(part):,} as job {jobs[-1].job_id}")
        return jobs

    jobs = job_view.ask_ingest(address, put_back)
    for one in jobs if as_json else ():
        output.print_json(job_view.job_record(one))
    if not jobs:
        output.print_note("no dead letters found")


@app.command()
def delete(
    letters: _LettersArgument = None,
    every: _AllFlag = False,
    tenant: job_view.TenantOption = "",
    job: _OfJobOption = "",
    yes: confirmation.YesOption = False,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Delete dead letters, including the submitted documents."""
    _check_choice(letters, every, tenant, job)
    what = counted(len(letters), "dead letter") if letters else "all dead letters that match"
    confirmation.confirm(f"delete {what} with their documents", yes=yes)

    async def remove(client: IngestClient) -> int:
        parts = await _parts(client, letters, tenant, job)
        return sum([await client.delete_dead_letters(part) for part in parts])

    deleted = job_view.ask_ingest(address, remove)
    output.print_result({"deleted": deleted}, f"{deleted:,} deleted", as_json=as_json)


def _check_choice(letters: Sequence[str] | None, every: bool, tenant: str, job: str) -> None:
    if bool(letters) == every:
        raise InvalidRequest("name dead letters, or use --all, but not both", field="letters")
    if letters and (tenant or job):
        raise InvalidRequest("--tenant and --job can only be used with --all", field="letters")


async def _parts(
    client: IngestClient, named: Sequence[str] | None, tenant: str, job: str
) -> list[list[str]]:
    """Returns dead letters in batches of one request each; the letters of a job stay together."""
    by_job: dict[str, list[str]] = {"": list(dict.fromkeys(named or ()))}
    if not named:
        # Read all before putting any back: one may soon be dead again, at the end of the list.
        async for one in job_view.iterate_dead_letters(client, tenant=tenant, job_id=job):
            by_job.setdefault(one.job_id, []).append(one.letter_id)
    return [
        ids[at : at + c.MAX_BATCH]
        for ids in by_job.values()
        for at in range(0, len(ids), c.MAX_BATCH)
    ]


def _letter(letter: c.DeadLetter) -> dict[str, object]:
    """Returns a dead letter as a JSON object; a file that is not text is in hexadecimal."""
    return {
        "letter_id": letter.letter_id,
        "job_id": letter.job_id,
        "collection": letter.collection,
        "tenant": letter.tenant,
        **output.json_record(asdict(letter.result)),
        **({} if letter.source is None else {"source": _source_record(letter.source)}),
    }


def _source_record(source: c.IngestSource) -> dict[str, object]:
    if isinstance(source, c.SourceUrl):
        return {"url": source.url}
    if isinstance(source, c.SourceFile):
        try:
            return {"file": source.name, "content": source.content.decode()}
        except UnicodeDecodeError:
            return {"file": source.name, "content_hex": source.content.hex()}
    return {
        "id": source.id,
        "title": source.title,
        "text": source.text,
        "attributes": output.json_record(dict(source.attributes)),
        "vector": None if source.vector is None else source.vector.tolist(),
        "expires": None if source.expires is None else source.expires.isoformat(),
    }


def _shown(source: c.IngestSource | None) -> str:
    """Returns a submitted document on one line."""
    if isinstance(source, c.SourceUrl):
        return source.url
    if isinstance(source, c.SourceFile):
        text = f"{source.name}, {output.format_bytes(len(source.content))}"
    elif source is not None:
        text = " — ".join(part for part in (source.title, source.text) if part)
    else:
        return ""
    return output.one_line(text, _SOURCE_CHARACTERS)
