"""`nearline ask`: answers a question from the documents, with footnotes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients import GenerationClient
from nearline.counts import counted
from nearline.errors import InvalidRequest, NearlineError
from nearline.filter_text import parse_filter
from nearline.tls import TlsFiles
from nearline_cli.terminal import options, output
from nearline_cli.views.answers import show_answer


def ask(
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION",
            help="Question to answer. Required, except with --watch and --stop.",
            show_default=False,
        ),
    ] = "",
    filter: options.FilterOption = "",
    mode: Annotated[
        c.SearchMode | None,
        typer.Option(help="How evidence is searched for. \\[default: the server's]"),
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", min=1, metavar="N", help="Documents to answer from, 1..50."),
    ] = 5,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum length of the answer, 1..4096.")
    ] = 256,
    always: Annotated[
        bool, typer.Option("--always", help="Answer even if the evidence looks too weak.")
    ] = False,
    session: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Conversation to continue: its earlier questions and answers are taken into "
            "account.",
        ),
    ] = "",
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Writer of the answer: extractive, or a model of the service. \\[default: the "
            "service chooses]",
        ),
    ] = "",
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature of a model, 0..2.")
    ] = 0.0,
    unsupported: Annotated[
        c.Unsupported,
        typer.Option(help="What happens to sentences of a model that no source supports."),
    ] = c.Unsupported.DROP,
    strictness: Annotated[
        c.Strictness | None,
        typer.Option(
            help="How sure the service must be to answer. strict: few wrong answers; lenient: few "
            "questions without one. \\[default: the service's for the collection, else balanced]"
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Write a new answer instead of returning a cached one.")
    ] = False,
    folder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Answer from the files of this folder, on this machine: they are indexed, and "
            "indexed again once they change. No service needs to run; the first question starts "
            "some that end ten minutes after the last.",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep the index of --folder in step with its files until Ctrl-C, instead of "
            "answering.",
        ),
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the services of --folder, instead of answering.")
    ] = False,
    token: options.TokenOption = "",
    timeout: options.TimeoutOption = options.LONG_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Answer a question from your documents; every sentence cites its source.

    There are three outcomes: an answer; "not sure" with the closest passages, if your documents may
    not answer it; or a refusal, if nothing in them is near the question.

    For example: nearline ask "how do I run a subprocess with a timeout?"

    Without any service: nearline ask "how long may I return an item?" --folder ~/documents
    """
    if folder is not None and not folder.strip():
        raise InvalidRequest("--folder is empty; name the folder of your files", field="folder")
    if watch or stop:
        if not folder or question or (watch and stop):
            raise InvalidRequest("--watch and --stop need --folder, and no QUESTION; use one")
        _run(_watch(Path(folder), as_json) if watch else _stop(Path(folder), as_json))
        return
    if not question:
        raise InvalidRequest(
            'QUESTION is missing; write one in quotes: nearline ask "…"', field="question"
        )
    request = c.Question(
        text=question,
        filter=parse_filter(filter) if filter else None,
        mode=mode,
        documents=limit,
        max_tokens=max_tokens,
        refuse=not always,
        session_id=session,
        backend=backend,
        temperature=temperature,
        unsupported=unsupported,
        strictness=strictness,
        fresh=fresh,
    )
    if folder:
        _run(_ask_folder(Path(folder), request, timeout, as_json))
        return

    async def run() -> None:
        async with GenerationClient(address, token=token) as client:
            await show_answer(
                client, request, collection=collection, timeout_s=timeout, as_json=as_json
            )

    asyncio.run(run())


async def _ask_folder(folder: Path, question: c.Question, timeout_s: float, as_json: bool) -> None:
    # Imported late: other questions need nothing of it.
    from nearline_cli.compose.folder_index import FolderIndex

    async with FolderIndex(folder, as_json=as_json).served() as keeper:
        async with GenerationClient(
            keeper.generation, token=keeper.token, tls=TlsFiles()
        ) as client:
            await show_answer(client, question, timeout_s=timeout_s, as_json=as_json)


async def _watch(folder: Path, as_json: bool) -> None:
    from nearline_cli.compose.folder_index import FolderIndex, FolderUpdate

    def report(update: FolderUpdate | NearlineError) -> None:
        if isinstance(update, NearlineError):
            output.print_error(update, as_json=as_json)
            return
        text = (
            f"{datetime.now():%H:%M:%S} {update.changes}: {counted(update.documents, 'document')} "
            f"of {counted(update.files, 'file')}, {update.seconds:.1f} s"
        )
        record = {"event": "update", **update._asdict()}
        output.print_result(record, text, as_json=as_json)

    output.print_note(f"watching {folder}; Ctrl-C ends it")
    await FolderIndex(folder, as_json=as_json, summary=False).watch(report)


async def _stop(folder: Path, as_json: bool) -> None:
    from nearline_cli.compose.folder_index import FolderIndex

    stopped = await FolderIndex(folder, as_json=as_json).stop()
    text = f"{'ended the' if stopped else 'there are no'} services of {folder}"
    output.print_result({"stopped": stopped}, text, as_json=as_json)


def _run(work: Coroutine[None, None, None]) -> None:
    """Runs the work; SIGTERM, and the death of its owner, end it as Ctrl-C does."""
    try:
        asyncio.run(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
