"""The generation service: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from generation import citations, confidence, extractive, scoring
from generation.evidence import passages_of
from generation.reading import Found, Reader
from nearline import contract as c
from nearline.errors import InvalidRequest, NotReady
from nearline.sentences import estimate_tokens

# Below these an answer is refused. Source: docs/quality.md, "Answers".
TOPIC_THRESHOLD = 0.5
EVIDENCE_THRESHOLD = 0.35
_BACKEND = "extractive"
_TITLE_CHARACTERS = 64
_MESSAGES = {
    c.RefusalReason.OFF_TOPIC: "The collection seems to be about other things.",
    c.RefusalReason.NO_EVIDENCE: "Nothing that was found answers this.",
}


class GenerationService:
    """Answers questions from a collection's own sentences; a `Generator`. Holds no state of calls.

    Args:
        retriever: Finds evidence.
        embedder: Embeds sentences, with the model of the collection; None: words alone rank them.
    """

    def __init__(self, retriever: c.Retriever, embedder: c.Embedder | None = None) -> None:
        self._retriever = retriever
        self._reader = Reader(retriever, embedder)

    async def generate(
        self,
        question: c.Question,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> AsyncIterator[c.AnswerEvent]:
        """Answers a question; see `Generator.generate`."""
        _check(question)
        start = asyncio.get_running_loop().time()
        found = await self._reader.find(question, collection, timeout_s)
        yield c.Evidence(documents=[source.best for source in found.sources], info=found.reply.info)
        spent_s = asyncio.get_running_loop().time() - start
        left_s = None if timeout_s is None else max(0.0, timeout_s - spent_s)
        for event in await self._answer(question, found, left_s):
            yield event

    async def verify(
        self,
        cited: Sequence[c.Citation],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.VerifyReply:
        """Checks citations against what is served now; see `Generator.verify`."""
        if not 1 <= len(cited) <= c.MAX_BATCH:
            raise InvalidRequest(
                f"there are {len(cited)} citations; 1..{c.MAX_BATCH} are allowed",
                field="citations",
            )
        ids = list(dict.fromkeys(one.document_id for one in cited))
        reply = await self._retriever.get_items(
            ids, frozenset({c.PayloadField.TEXT}), collection=collection, timeout_s=timeout_s
        )
        away = [
            one.id for one in reply.ignored_ids if one.reason is c.IgnoredReason.SHARD_UNAVAILABLE
        ]
        if away:
            # Not GONE: nobody knows.
            raise NotReady(f"the shard of document {away[0]!r} does not answer; try again")
        texts = {item.id: item.text for item in reply.items}

        def checked() -> list[c.CitationCheck]:
            return [citations.check(one, texts.get(one.document_id)) for one in cited]

        # A long document takes a hash per word.
        return c.VerifyReply(checks=await asyncio.to_thread(checked), info=reply.info)

    async def _answer(
        self, question: c.Question, found: Found, left_s: float | None
    ) -> list[c.AnswerEvent]:
        if not passages_of(found.sources):
            return [_refusal(c.RefusalReason.NO_EVIDENCE, confidence.Confidence(0.0, 0.0))]
        reading = await self._reader.read(found, left_s)
        sure = confidence.assess(reading.signals)
        if question.refuse and sure.topic < TOPIC_THRESHOLD:
            return [_refusal(c.RefusalReason.OFF_TOPIC, sure)]
        if question.refuse and sure.evidence < EVIDENCE_THRESHOLD:
            return [_refusal(c.RefusalReason.NO_EVIDENCE, sure)]
        scores = scoring.DEFAULT.score(reading.features)
        chosen = extractive.choose(found.sources, scores, question.max_tokens)
        events, text = _cited(chosen.spans, found)
        return [
            *events,
            c.Done(
                tokens=estimate_tokens(text),
                citations=len(chosen.spans),
                evidence_probability=sure.evidence,
                calibrated=False,
                truncated=chosen.truncated,
                served_by=c.ServedBy(rung=_BACKEND, reason=reading.degraded),
            ),
        ]


def _check(question: c.Question) -> None:
    text = question.text
    if not text.strip():
        raise InvalidRequest("question is empty; ask something", field="question")
    if len(text) > c.MAX_QUERY_CHARACTERS:
        raise InvalidRequest(
            f"question has {len(text):,} characters; at most {c.MAX_QUERY_CHARACTERS:,} are "
            "allowed",
            field="question",
        )
    for name, value, most in (
        ("max_tokens", question.max_tokens, c.MAX_ANSWER_TOKENS),
        ("documents", question.documents, c.MAX_EVIDENCE_DOCUMENTS),
    ):
        if not 1 <= value <= most:
            raise InvalidRequest(f"{name} is {value}; 1..{most} is allowed", field=name)


def _cited(spans: Sequence[extractive.Span], found: Found) -> tuple[list[c.AnswerEvent], str]:
    """Gives the events of an answer, and its text."""
    events: list[c.AnswerEvent] = []
    text = ""
    for number, span in enumerate(spans, start=1):
        source = found.sources[span.source]
        chunk = source.chunk(span.passages[0].chunk)
        stored = chunk.text or ""
        read = stored[span.start - chunk.start : span.end - chunk.start]
        citation = c.Citation(
            number=number,
            document_id=chunk.id,
            chunk=chunk.chunk,
            start=span.start,
            end=span.end,
            text_hash=citations.text_hash(read),
            snapshot_id=found.reply.info.snapshot_id,
            title=source.best.title or "",
        )
        said = citations.readable(read)
        named = number == 1 or spans[number - 2].source != span.source
        if named and 0 < len(citation.title) <= _TITLE_CHARACTERS and citation.title not in said:
            # A sentence of a manual seldom says what it is about: its title does.
            said = f"{citations.readable(citation.title)}: {said}"
        piece = f"{' ' if text else ''}{said} [{number}]"
        text += piece
        events += [c.Delta(piece), citation]
    return events, text


def _refusal(reason: c.RefusalReason, sure: confidence.Confidence) -> c.Refusal:
    return c.Refusal(
        reason=reason,
        topic_probability=sure.topic,
        evidence_probability=sure.evidence,
        calibrated=False,
        message=_MESSAGES[reason],
    )
