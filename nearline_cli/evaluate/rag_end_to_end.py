"""Asks a running generation service, checks its answers and times them."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearline import contract as c
from nearline.clients import GenerationClient, RetrievalClient

if TYPE_CHECKING:
    from generation.training.labels import LabelledQuestion

_TIMEOUT_S = 60.0
# Questions asked first and not counted, to open connections and warm caches.
_WARM_UP = 5


@dataclass(slots=True)
class _AnswerCounts:
    """Counts over all answers; of `outcomes`, over the questions asked as a user would."""

    citations: int = 0
    exact: int = 0
    cited_where_answered: int = 0
    overlapping: int = 0
    contained: int = 0
    answerable: int = 0
    answered: int = 0
    characters: int = 0
    calibrated: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    first_s: list[float] = field(default_factory=list)
    search_s: list[float] = field(default_factory=list)


async def measure_answers(
    questions: Sequence[LabelledQuestion],
    collection: str,
    advance: Callable[[int], None],
    *,
    generation: str,
    retrieval: str,
) -> dict[str, object]:
    """Asks one question after the other, and checks each answer against the store.

    Each is asked twice: without refusals, for answers to all, and as a user would ask it.

    Args:
        questions: Labelled questions.
        collection: Name of the collection.
        advance: Called with the number of questions done.
        generation, retrieval: Addresses of the services.
    Returns: Figures by name; a share of nothing is None.
    """
    from generation.evidence.evidence_reader import EvidenceReader

    served = _AnswerCounts()
    async with (
        GenerationClient(generation) as generator,
        RetrievalClient(retrieval) as retriever,
    ):
        reader = EvidenceReader(retriever, None)
        for number, question in enumerate([*questions[:_WARM_UP], *questions]):
            asked = c.Question(text=question.text, refuse=False)
            counted = served if number >= min(_WARM_UP, len(questions)) else _AnswerCounts()
            start = time.perf_counter()
            await reader.find(asked, collection, _TIMEOUT_S)
            counted.search_s.append(time.perf_counter() - start)
            text, cited = await _answer(generator, asked, collection, counted)
            await _check(retriever, question, text, cited, collection, counted)
            if counted is served:
                await _count_outcome(generator, question, collection, counted.outcomes)
            advance(int(counted is served))
    return _figures(served)


async def _answer(
    generator: GenerationClient, asked: c.Question, collection: str, served: _AnswerCounts
) -> tuple[str, list[c.Citation]]:
    start = time.perf_counter()
    text, cited = "", []
    async for event in generator.generate(asked, collection=collection, timeout_s=_TIMEOUT_S):
        match event:
            case c.Delta():
                if not text:
                    served.first_s.append(time.perf_counter() - start)
                text += event.text
            case c.Citation():
                cited.append(event)
            case c.Done():
                served.calibrated += event.calibrated
                served.answered += 1
    return text, cited


async def _count_outcome(
    generator: GenerationClient,
    question: LabelledQuestion,
    collection: str,
    outcomes: Counter[str],
) -> None:
    """Asks as a user would; counts what comes, and whether it cites or shows an answer."""
    cited, outcome = [], "refused"
    asked = c.Question(text=question.text)
    async for event in generator.generate(asked, collection=collection, timeout_s=_TIMEOUT_S):
        match event:
            case c.Citation():
                cited.append(event)
            case c.Done():
                outcome = "not_sure" if event.not_sure else "answered"
    outcomes[outcome] += 1
    if not question.has_answer:
        outcomes["unanswerable"] += 1
        outcomes["unanswerable_answered"] += outcome == "answered"
    elif any(_is_gold(citation, question) for citation in cited):
        outcomes[f"right_{outcome}"] += 1


def _is_gold(citation: c.Citation, question: LabelledQuestion) -> bool:
    return any(
        citation.char_start < gold.end and gold.start < citation.char_end
        for gold in question.spans.get(citation.document_id, ())
    )


async def _check(
    retriever: RetrievalClient,
    question: LabelledQuestion,
    text: str,
    cited: Sequence[c.Citation],
    collection: str,
    served: _AnswerCounts,
) -> None:
    from generation.checks.citations import clean_text

    ids = list(dict.fromkeys(citation.document_id for citation in cited))
    stored: dict[str, str] = {}
    if ids:
        reply = await retriever.get_items(
            ids, frozenset({c.PayloadField.TEXT}), collection=collection, timeout_s=_TIMEOUT_S
        )
        stored = {item.id: item.text for item in reply.items}
    served.characters += len(text)
    # An answer keeps the lines of lists and code.
    shown = " ".join(text.split())
    for citation in cited:
        span = stored.get(citation.document_id, "")[citation.char_start : citation.char_end]
        hashed = hashlib.sha256(span.encode()).hexdigest()
        served.citations += 1
        exact = hashed == citation.text_hash and clean_text(span) in shown
        served.exact += bool(span) and exact
        if question.has_answer:
            served.cited_where_answered += 1
            served.overlapping += _is_gold(citation, question)
    if question.has_answer:
        served.answerable += 1
        plain = shown.lower()
        served.contained += any(
            " ".join(clean_text(gold.text).lower().split()) in plain
            for spans in question.spans.values()
            for gold in spans
        )


def _figures(served: _AnswerCounts) -> dict[str, object]:
    first, search = _median_ms(served.first_s), _median_ms(served.search_s)
    over = None if first is None or search is None else round(first - search, 2)
    came, right = served.outcomes, served.outcomes["right_answered"]
    asked = came["answered"] + came["not_sure"] + came["refused"]
    return {
        "offset_accuracy": _share(served.exact, served.citations),
        "citations": served.citations,
        "citation_precision": _share(served.overlapping, served.cited_where_answered),
        "answer_containment": _share(served.contained, served.answerable),
        "answer_chars_mean": round(served.characters / max(1, served.answered), 1),
        "answered": _share(came["answered"], asked),
        "not_sure": _share(came["not_sure"], asked),
        "refused": _share(came["refused"], asked),
        "right": _share(right, served.answerable),
        "right_or_shown": _share(right + came["right_not_sure"], served.answerable),
        "unanswerable_answered": _share(came["unanswerable_answered"], came["unanswerable"]),
        "served_calibrated": _share(served.calibrated, served.answered),
        "first_delta_p50_ms": first,
        "retrieval_p50_ms": search,
        "first_delta_over_retrieval_p50_ms": over,
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _median_ms(seconds: Sequence[float]) -> float | None:
    return round(statistics.median(seconds) * 1e3, 2) if seconds else None
