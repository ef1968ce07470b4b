"""`nearline ask`: a question answered from the documents, with footnotes."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

from nearline import contract as c
from nearline.cli import options, output
from nearline.clients import GenerationClient
from nearline.filter_text import parse_filter

_EVENTS = {
    c.Evidence: "evidence",
    c.Delta: "delta",
    c.Citation: "citation",
    c.Done: "done",
    c.Refusal: "refusal",
}


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to answer.")],
    filter: options.FilterOption = "",
    mode: Annotated[
        c.SearchMode | None, typer.Option(help="How evidence is found. [default: the server's]")
    ] = None,
    documents: Annotated[
        int, typer.Option(metavar="N", help="Documents to answer from, 1..50.")
    ] = 5,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Length of the answer, 1..4096.")
    ] = 256,
    always: Annotated[
        bool, typer.Option("--always", help="Answer even where the evidence looks too weak.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait.")] = 60.0,
    address: Annotated[
        str,
        typer.Option("--address", metavar="HOST:PORT", help="Address of the generation service."),
    ] = options.DEFAULT_GENERATION_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Answer a question from what a collection holds; every sentence names its source."""
    asked = c.Question(
        text=question,
        filter=parse_filter(filter) if filter else None,
        mode=mode,
        documents=documents,
        max_tokens=max_tokens,
        refuse=not always,
    )
    asyncio.run(_run(asked, address, collection, timeout, as_json))


async def _run(
    question: c.Question, address: str, collection: str, timeout_s: float, as_json: bool
) -> None:
    start = time.perf_counter()
    cited: list[c.Citation] = []
    first_s = 0.0
    async with GenerationClient(address) as client:
        async for event in client.generate(question, collection=collection, timeout_s=timeout_s):
            if as_json:
                output.print_json({"event": _EVENTS[type(event)], **_plain(asdict(event))})
                continue
            match event:
                case c.Delta():
                    first_s = first_s or time.perf_counter() - start
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
                case c.Citation():
                    cited.append(event)
                case c.Done():
                    _print_footnotes(cited, event, first_s)
                case c.Refusal():
                    # Its probabilities say how close it was; --always shows what there is.
                    print(
                        f"No answer ({event.reason.value}): {event.message} "
                        f"On topic {event.topic_probability:.2f}, evidence "
                        f"{event.evidence_probability:.2f}; --always answers all the same."
                    )


def _print_footnotes(cited: list[c.Citation], done: c.Done, first_s: float) -> None:
    print("\n")
    for one in cited:
        title = output.one_line(one.title, 72)
        print(f"[{one.number}] {one.document_id} {one.start}-{one.end}  {title}")
    about = f"evidence {done.evidence_probability:.2f}"
    about += "" if done.calibrated else " (uncalibrated)"
    if done.truncated:
        about += ", cut at --max-tokens"
    if done.served_by.reason:
        about += f", {done.served_by.reason}"
    print(f"{first_s * 1e3:.0f} ms to the first word, {done.served_by.rung}, {about}")


def _plain(value: object) -> dict[str, object]:
    """Gives a record as JSON can hold it."""

    def of(one: object) -> object:
        if isinstance(one, Enum):
            return one.value
        if isinstance(one, bytes):
            return one.hex()
        if isinstance(one, dict):
            return {key: of(each) for key, each in one.items()}
        return [of(each) for each in one] if isinstance(one, list | tuple) else one

    plain = of(value)
    assert isinstance(plain, dict)
    return plain
