"""Builds training data: asks labelled questions like the service, and records the features."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from generation.evidence.evidence_reader import Evidence, EvidenceReader
from generation.evidence.logistic import Floats
from generation.evidence.sentence_judge import JudgeService, SentenceJudge
from generation.evidence.sources import EvidenceSource, group_sources, list_passages
from generation.training.labels import LabelledQuestion, LabelSpan
from nearline import contract as c
from nearline.errors import InvalidRequest, NotReady

# Number of concurrent questions.
_AT_ONCE = 4
# Maximum number of embedded sentences per document.
_INSIDE_EMBEDDED = 256
_TIMEOUT_S = 120.0
# Number of nearest documents to hide so that a question becomes off topic. 500 work well on
# SciFact, where they are a tenth of the documents; with 50, the hiding is detectable.
_HIDDEN = 500
_HIDDEN_SHARE = 0.1

ProgressCallback = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingExample:
    """Sentences to be ranked for a question.

    features: (n, f); the columns are `sentence_features.FEATURES`.
    held: (n, g), the share of each labelled span that a sentence contains, 0..1. A span that was
        not found is a column of zeros.
    evidence: (n,), whether a sentence contains most of a span, or a span most of the sentence.
    """

    features: Floats
    held: Floats
    evidence: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionExample:
    """The recorded features of a question.

    found: Sentences of the found documents, embedded as in the service.
    inside: All sentences of each cited document that answers the question.
    signals: See `confidence.compute_signals`.
    hidden: The signals with the nearest documents hidden; None if not requested.
    """

    question: LabelledQuestion
    found: RankingExample
    inside: Sequence[RankingExample]
    signals: Mapping[str, float]
    hidden: Mapping[str, float] | None


class DatasetBuilder:
    """Asks labelled questions through an `EvidenceReader`.

    Args:
        retriever: Finds chunks.
        embedder: Embeds sentences with the model of the collection.
        collection: Name of the collection.
        documents: Number of documents in the collection.
        judged: Whether the judge of the embedding service, if it has one, reads sentences.
    Raises: NotReady: a service was unavailable for too long.
    """

    def __init__(
        self,
        retriever: c.Retriever,
        embedder: c.Embedder,
        collection: str = c.DEFAULT_COLLECTION,
        documents: int = 0,
        *,
        judged: bool = True,
    ) -> None:
        self._retriever = retriever
        judge = None
        if judged and isinstance(embedder, JudgeService):
            judge = SentenceJudge(embedder)
        self._reader = EvidenceReader(retriever, embedder, _TIMEOUT_S, judge=judge)
        # For signals that use only words and cosines of chunks, no sentence is embedded.
        self._by_words = EvidenceReader(retriever, None)
        self._collection = collection
        self._hidden = max(1, min(_HIDDEN, int(documents * _HIDDEN_SHARE)))

    async def observe(
        self,
        questions: Sequence[LabelledQuestion],
        advance: ProgressCallback = lambda questions: None,
        *,
        inside: bool = False,
        hide: bool = False,
    ) -> list[QuestionExample]:
        """Asks all questions, and returns their features in order.

        Args:
            questions: Questions with their labels.
            advance: Called with the number of newly finished questions.
            inside: Whether to also include all sentences of the cited documents.
            hide: Whether to also ask with the nearest documents hidden.
        Raises: InvalidRequest: a label does not match the text in the collection.
        """
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(question: LabelledQuestion) -> QuestionExample:
            async with slots:
                observed = await self._one(question, inside=inside, hide=hide)
                advance(1)
                return observed

        tasks = [asyncio.create_task(one(question)) for question in questions]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # After the first error, the other questions are cancelled.
            for task in tasks:
                task.cancel()

    async def _one(
        self, question: LabelledQuestion, *, inside: bool, hide: bool
    ) -> QuestionExample:
        asked = c.Question(text=question.text)
        found = await self._reader.find(asked, self._collection, _TIMEOUT_S)
        ranked, signals = await self._ranked(found, question.spans)
        within = []
        if inside:
            for source in await self._cited(question):
                alone = _alone(found, source)
                spans = {source.best.id: question.spans[source.best.id]}
                within.append((await self._ranked(alone, spans, _INSIDE_EMBEDDED))[0])
        hidden = None
        if hide:
            beyond = await self._reader.find_beyond(
                asked, self._hidden, self._collection, _TIMEOUT_S
            )
            if list_passages(beyond.sources):
                hidden = (await self._by_words.read(beyond, None)).signals
        return QuestionExample(
            question=question, found=ranked, inside=within, signals=signals, hidden=hidden
        )

    async def _ranked(
        self,
        found: Evidence,
        spans: Mapping[str, Sequence[LabelSpan]],
        embedded: int | None = None,
    ) -> tuple[RankingExample, Mapping[str, float]]:
        reading = await self._reader.read(found, None, embedded=embedded)
        if reading.degraded:
            raise NotReady(f"{reading.degraded}; training data requires all services")
        held, evidence = _overlap(found, spans)
        return RankingExample(
            features=reading.features, held=held, evidence=evidence
        ), reading.signals

    async def _cited(self, question: LabelledQuestion) -> list[EvidenceSource]:
        """Reads the answering documents completely; omits documents that the collection lacks."""
        if not question.spans:
            return []
        reply = await self._retriever.get_items(
            list(question.spans),
            frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT}),
            collection=self._collection,
            timeout_s=_TIMEOUT_S,
        )
        whole = []
        for item in reply.items:
            for span in question.spans[item.id]:
                if item.text[span.start : span.end] != span.text:
                    raise InvalidRequest(
                        f"question {question.id}: document {item.id} has "
                        f"{item.text[span.start : span.end][:40]!r} at {span.start}, not "
                        f"{span.text[:40]!r}; the labels belong to another text",
                        field="data",
                    )
            hit = c.Hit(id=item.id, score=1.0, end=len(item.text), title=item.title, text=item.text)
            whole += group_sources([hit], 1)
        return whole


def _alone(found: Evidence, source: EvidenceSource) -> Evidence:
    """Returns the evidence as if the document were the only one."""
    result = replace(found.reply.results[0], hits=source.chunks)
    return Evidence(found.question, replace(found.reply, results=[result]), [source])


def _overlap(
    found: Evidence, spans: Mapping[str, Sequence[LabelSpan]]
) -> tuple[Floats, NDArray[np.bool_]]:
    passages = list_passages(found.sources)
    labelled = [(document, span) for document, held in spans.items() for span in held]
    shared = np.zeros((len(passages), len(labelled)))
    for row, passage in enumerate(passages):
        for column, (document, span) in enumerate(labelled):
            if found.sources[passage.document].best.id == document:
                both = min(passage.end, span.end) - max(passage.start, span.start)
                shared[row, column] = max(0, both)
    lengths = np.array([span.end - span.start for _, span in labelled], np.float64)
    sizes = np.array([passage.end - passage.start for passage in passages], np.float64)
    most = np.asarray(shared > 0.5 * np.minimum(lengths[None], sizes[:, None]))
    evidence = np.asarray(most.any(axis=1), np.bool_)
    return np.asarray(shared / np.maximum(lengths, 1)[None], np.float64), evidence
