"""`nearline ask`: answers a question from the documents, with footnotes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients import GenerationClient
from nearline.filter_text import parse_filter
from nearline.tls import TlsFiles
from nearline_cli.terminal import options, output
from nearline_cli.views.answers import show_answer
from nearline_cli.views.process_report import ProcessReport


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Question to answer.")],
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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Write a new answer instead of returning a cached one.")
    ] = False,
    folder: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Answer from the files of this folder, on this machine: they are indexed, and "
            "indexed again once they change. No service needs to run.",
        ),
    ] = "",
    token: options.TokenOption = "",
    timeout: options.TimeoutOption = options.LONG_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Answer a question from your documents; every sentence cites its source.

    For example: nearline ask "how do I run a subprocess with a timeout?"

    Without any service: nearline ask "how long may I return an item?" --folder ~/documents
    """
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
        fresh=fresh,
    )
    if folder:
        report = ProcessReport(as_json=False, verbose=False)
        report.run_until_interrupted(_ask_folder(Path(folder), report, request, timeout, as_json))
        return

    async def run() -> None:
        async with GenerationClient(address, token=token) as client:
            await show_answer(
                client, request, collection=collection, timeout_s=timeout, as_json=as_json
            )

    asyncio.run(run())


async def _ask_folder(
    folder: Path, report: ProcessReport, question: c.Question, timeout_s: float, as_json: bool
) -> None:
    # Imported late: it loads what starts and supervises processes.
    from nearline_cli.compose.local_index import Observers, serve_folder
    from nearline_cli.local.supervisor import end_on_sigterm

    end_on_sigterm()
    observers = Observers(report.change, report.line)
    async with serve_folder(folder, observers, as_json=as_json) as address:
        report.flush()
        async with GenerationClient(address, token="", tls=TlsFiles()) as client:
            await show_answer(client, question, timeout_s=timeout_s, as_json=as_json)
