"""`nearline ask`: answers a question from the documents, with footnotes."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients import GenerationClient
from nearline.counts import counted
from nearline.filter_text import parse_filter
from nearline_cli.terminal import options, output

_EVENTS = {
    c.Evidence: "evidence",
    c.Delta: "delta",
    c.Citation: "citation",
    c.Usage: "usage",
    c.Done: "done",
    c.Refusal: "refusal",
}
_FINISHES = {
    c.Finish.LENGTH: "cut at --max-tokens",
    c.Finish.INTERRUPTED: "the writer failed before the answer was complete",
    c.Finish.DEADLINE: "cut at --timeout",
}


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
    token: options.TokenOption = "",
    timeout: options.TimeoutOption = options.LONG_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Answer a question from your documents; every sentence cites its source.

    For example: nearline ask "how do I run a subprocess with a timeout?"
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
    asyncio.run(_run(request, address, token, collection, timeout, as_json))


async def _run(
    question: c.Question,
    address: str,
    token: str,
    collection: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    start = time.perf_counter()
    cited: list[c.Citation] = []
    usage = c.Usage()
    first_s = 0.0
    async with GenerationClient(address, token=token) as client:
        async for event in client.generate(question, collection=collection, timeout_s=timeout_s):
            if as_json:
                output.print_json(
                    {"event": _EVENTS[type(event)], **output.json_record(asdict(event))}
                )
                continue
            match event:
                case c.Evidence() if event.condensed:
                    print(f"({output.one_line(event.condensed, 100)})")
                case c.Delta():
                    first_s = first_s or time.perf_counter() - start
                    # Marked in the text, like a citation: colours do not survive a pipe.
                    sys.stdout.write(event.text + (" [?]" if event.unsupported else ""))
                    sys.stdout.flush()
                case c.Usage():
                    usage = event
                case c.Citation():
                    cited.append(event)
                case c.Done():
                    _print_footnotes(cited, event, usage, first_s)
                case c.Refusal():
                    # The probabilities show how close the decision was.
                    print(
                        f"No answer ({event.reason.value}): {event.message} "
                        f"On topic {event.topic_probability:.2f}, evidence "
                        f"{event.evidence_probability:.2f}; use --always to answer anyway."
                    )
                    _warn_of_session(event.session)


def _print_footnotes(cited: list[c.Citation], done: c.Done, usage: c.Usage, first_s: float) -> None:
    print("\n")
    for citation in cited:
        title = output.one_line(citation.title, 72)
        place = f"{citation.document_id} {citation.char_start}-{citation.char_end}"
        print(f"[{citation.number}] {place}  {title}")
    about = [f"{first_s * 1e3:.0f} ms to the first word"]
    cached = ", cached" if done.served_by.source is c.Source.CACHE else ""
    about.append(done.served_by.rung + cached)
    shipped = "" if done.calibrated else " (uncalibrated)"
    about.append(f"evidence {done.evidence_probability:.2f}{shipped}")
    if usage.completion_tokens:
        about.append(f"{usage.prompt_tokens} tokens read and {usage.completion_tokens} written")
    if usage.cost:
        about.append(f"cost {usage.cost:.6f}")
    if done.finish is not c.Finish.COMPLETE:
        about.append(_FINISHES[done.finish])
    if done.dropped_sentences:
        about.append(f"{counted(done.dropped_sentences, 'unsupported sentence')} left out")
    if done.served_by.reason:
        about.append(done.served_by.reason)
    print(", ".join(about))
    _warn_of_session(done.session)


def _warn_of_session(session: c.SessionState | None) -> None:
    if session is not None and not session.saved:
        output.print_note(f"This turn was not saved in the session: {session.reason}")
