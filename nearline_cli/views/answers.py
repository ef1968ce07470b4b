"""An answer on the terminal: its text as it is written, then its footnotes."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

from nearline import contract as c
from nearline.clients import GenerationClient
from nearline.counts import counted
from nearline_cli.terminal import output

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


async def show_answer(
    client: GenerationClient,
    question: c.Question,
    *,
    collection: str = c.DEFAULT_COLLECTION,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Asks a question, and prints the answer with its footnotes as it comes, or its events as JSON.

    timeout_s: Time limit of the whole answer.
    """
    start = time.perf_counter()
    cited: list[c.Citation] = []
    usage = c.Usage()
    first_s = 0.0
    async for event in client.generate(question, collection=collection, timeout_s=timeout_s):
        if as_json:
            output.print_json({"event": _EVENTS[type(event)], **output.json_record(asdict(event))})
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
        print(output.escaped(f"[{citation.number}] {place}  {title}"))
    # The text says it, too; this mark stands at the end, where people look for the result.
    about = ["NOT SURE, these passages may be no answer"] if done.not_sure else []
    about.append(f"{first_s * 1e3:.0f} ms to the first word")
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
