"""Finds the evidence for a question, and computes features of each sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from generation.evidence import confidence, sentence_features
from generation.evidence.answer_units import (
    AnswerUnit,
    context_of,
    evidence_document,
    list_units,
)
from generation.evidence.calibration import DEFAULT_CALIBRATION
from generation.evidence.sentence_features import EvidenceDocument
from generation.evidence.sentence_judge import SentenceJudge
from generation.evidence.sources import EvidenceSource, group_sources
from generation.evidence.typos import corrected, misspelt_words
from generation.evidence.word_weights import ENGLISH, weigh_terms
from nearline import contract as c
from nearline.contract import Hit, Reranker
from nearline.errors import NearlineError
from nearline.filters import admits
from nearline.items.structure import section_at
from retrieval.index.lexical.text_analysis import NO_LANGUAGE, Analyser

_CHUNKS_PER_DOCUMENT = 4
# Sentences embedded per question. Eight have about 300 tokens, which take about 30 ms on two cores.
# On SciFact, 16 take twice the time and gain less than 0.01 of recall and AUROC; see
# docs/quality.md.
MAX_EMBEDDED_SENTENCES = 8
# Units that the judge reads. The best twelve by words hold an answer for 0.88 of the questions of
# our own folders whose answer was found, sixteen for 0.90; see docs/quality.md. With a judge, none
# is embedded.
MAX_JUDGED_SENTENCES = 12
_EMBED_TIMEOUT_S = 2.0
_RERANK_TIMEOUT_S = 2.0
_PAYLOAD = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.SECTION})


async def rerank(
    reranker: Reranker, question: str, hits: Sequence[Hit], most: int, timeout_s: float | None
) -> tuple[list[Hit], str]:
    """Reorders the best hits by the scores of a reranker; never fails.

    Args:
        reranker: Scores texts.
        question: Text of the question; not empty.
        hits: Chunks with their texts, best first.
        most: Maximum number of first hits to score, >= 0; hits without text are not scored.
        timeout_s: Timeout for scoring; if None, the reranker's own limit applies.
    Returns: All hits: the scored ones, best first and ties in the old order, then the others
        unchanged; and the reason if the hits were not reranked, otherwise an empty text. Hits keep
        their scores, because thresholds and signals are based on the scores of the search.
    """
    rows = [row for row, hit in enumerate(hits[:most]) if (hit.text or "").strip()]
    if not rows:
        return list(hits), ""
    texts = [_rerank_text(hits[row]) for row in rows]
    try:
        scores = await reranker.rerank(question, texts, timeout_s=timeout_s)
    except NearlineError as error:
        return list(hits), f"chunks are in the order of the search: {error.message}"
    # The sort is stable: equal scores keep the old order.
    best = sorted(range(len(rows)), key=lambda place: -scores[place])
    scored = set(rows)
    rest = [hit for row, hit in enumerate(hits) if row not in scored]
    return [*(hits[rows[place]] for place in best), *rest], ""


def _rerank_text(hit: Hit) -> str:
    """Returns the text for the reranker: title and text, in the form that the index embeds."""
    title, text = hit.title or "", hit.text or ""
    return text if text.startswith(title) else f"{title} {text}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The result of a search, and its chunks grouped into documents, best first.

    question_vectors: Embedding of the question; None if unknown.
    degraded: Why the search was by words alone since no embedder answered, and why the chunks were
        not reranked although a reranker is configured; empty otherwise.
    misspelt: Misspelt words of the question as it was asked, with those in their place.
    units: The unit of each passage, in the order of `list_passages`.
    """

    question: str
    reply: c.SearchReply
    sources: Sequence[EvidenceSource]
    question_vectors: c.Embeddings | None = None
    degraded: str = ""
    misspelt: Mapping[str, str] = field(default_factory=dict)
    units: Sequence[AnswerUnit] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", list_units(self.sources))

    def documents(self) -> list[EvidenceDocument]:
        """Returns the sources for `sentence_features`."""
        ranks = {(hit.id, hit.chunk): rank for rank, hit in enumerate(self.reply.hits)}
        by_source: list[list[AnswerUnit]] = [[] for _ in self.sources]
        for unit in self.units:
            by_source[unit.document].append(unit)
        return [
            evidence_document(source, units, ranks)
            for source, units in zip(self.sources, by_source, strict=True)
        ]

    def context(self, row: int) -> str:
        """Returns title and headings above a unit, for a model that reads it."""
        unit = self.units[row]
        return context_of(self.sources[unit.document], unit)


@dataclass(frozen=True, slots=True)
class EvidenceFeatures:
    """Features of evidence.

    features: (n, f), one row per sentence of all sources in order; the columns are
        `sentence_features.FEATURES`.
    signals: See `confidence.compute_signals`.
    degraded: Why sentences were ranked by words alone or were not judged; empty otherwise.
    """

    features: NDArray[np.float64]
    signals: dict[str, float]
    degraded: str

    @property
    def judged(self) -> bool:
        """Whether the judge has read the sentences."""
        return bool(np.isfinite(self.signals["answer_best"]))


class EvidenceReader:
    """Finds evidence and computes its features.

    Args:
        retriever: Finds chunks.
        embedder: Embeds sentences with the model of the collection. If None, sentences are ranked
            by words alone.
        embed_timeout_s: Maximum wait for the embedder; if it takes longer, sentences are ranked by
            words alone.
        reranker: Optional; reorders the best chunks.
        rerank_chunks: Number of chunks to rerank, >= 0.
        judge: Optional; judges the best of the sentences that are embedded.
    """

    def __init__(
        self,
        retriever: c.Retriever,
        embedder: c.Embedder | None,
        embed_timeout_s: float = _EMBED_TIMEOUT_S,
        *,
        reranker: c.Reranker | None = None,
        rerank_chunks: int = 0,
        judge: SentenceJudge | None = None,
    ) -> None:
        self._retriever = retriever
        self.embedder = self._embedder = embedder
        self._embed_timeout_s = embed_timeout_s
        self._reranker = reranker
        self._judge = judge
        self._rerank_chunks = rerank_chunks if reranker is not None else 0
        # Version of the settings that affect evidence; part of the key of every cached answer.
        self.version = f"rerank={self._rerank_chunks}"

    async def find(
        self, question: c.Question, collection: str, timeout_s: float | None
    ) -> Evidence:
        """Finds the chunks nearest to a question, grouped into documents.

        Hits that the question's filter does not admit are removed again here, so that no writer or
        caller sees one that the search let through.
        """
        k = question.documents * _CHUNKS_PER_DOCUMENT
        # Attributes are checked again below, and before a citation.
        payload = _PAYLOAD | {c.PayloadField.ATTRIBUTES} if question.filter else _PAYLOAD
        # The router embeds the question, too. Concurrent requests are batched by the service, and
        # the sentences need not wait for this one later.
        embedding = asyncio.create_task(self._embed_question(question.text))
        try:
            reply = await self._search(question, k, payload, collection, timeout_s)
            vectors = embedding.result() if embedding.done() else None
        finally:
            embedding.cancel()
        allowed = [
            hit
            for hit in reply.hits
            if question.filter is None or admits(question.filter, hit.attributes or {})
        ]
        hits, not_reranked = await self._reranked(question.text, allowed, timeout_s)
        source = reply.info.served_by
        by_words = source.reason if source.rung == c.LEXICAL_RUNG else ""
        degraded = "; ".join(filter(None, (by_words, not_reranked)))
        sources = group_sources(hits, question.documents)
        misspelt: dict[str, str] = {}
        if reply.results[0].language == ENGLISH:
            misspelt = misspelt_words(question.text, sources, _analyser(ENGLISH))
        text = corrected(question.text, misspelt)
        return Evidence(text, reply, sources, vectors, degraded, misspelt)

    async def _reranked(
        self, question: str, hits: Sequence[c.Hit], timeout_s: float | None
    ) -> tuple[Sequence[c.Hit], str]:
        """Returns the chunks in the order of the reranker, if there is one.

        The scores of the search are reassigned in the new order, because models and thresholds were
        learned from them.
        """
        if self._reranker is None or not self._rerank_chunks:
            return hits, ""
        limit_s = _RERANK_TIMEOUT_S if timeout_s is None else min(_RERANK_TIMEOUT_S, timeout_s)
        ordered, why = await rerank(self._reranker, question, hits, self._rerank_chunks, limit_s)
        scores = [hit.score for hit in hits]
        dealt = [replace(hit, score=score) for hit, score in zip(ordered, scores, strict=True)]
        return dealt, why

    async def find_beyond(
        self, question: c.Question, hidden: int, collection: str, timeout_s: float | None
    ) -> Evidence:
        """Finds evidence like `find`, as if the `hidden` nearest documents did not exist.

        Searches for some thousand chunks; used for calibration, see `generation.training`.
        """
        wanted = question.documents * _CHUNKS_PER_DOCUMENT
        k = min(c.MAX_K, hidden * _CHUNKS_PER_DOCUMENT + wanted)
        while True:
            reply = await self._search(question, k, frozenset(), collection, timeout_s)
            nearest = frozenset(list(dict.fromkeys(hit.id for hit in reply.hits))[:hidden])
            rest = [hit for hit in reply.hits if hit.id not in nearest][:wanted]
            # Long documents have many chunks each, so more chunks are needed to get past them.
            if len(rest) == wanted or len(reply.hits) < k or k == c.MAX_K:
                break
            k = min(c.MAX_K, k * _CHUNKS_PER_DOCUMENT)
        items: dict[str, c.Item] = {}
        if rest:
            read = await self._retriever.get_items(
                list(dict.fromkeys(hit.id for hit in rest)),
                _PAYLOAD,
                collection=collection,
                timeout_s=timeout_s,
            )
            items = {item.id: item for item in read.items}
        hits = [
            replace(
                hit,
                title=item.title,
                text=item.text[hit.start : hit.end],
                section=section_at(item.text, hit.start),
            )
            for hit in rest
            if (item := items.get(hit.id)) is not None
        ]
        left = replace(reply, results=[replace(reply.results[0], hits=hits)])
        return Evidence(question.text, left, group_sources(hits, question.documents))

    async def read(
        self, found: Evidence, timeout_s: float | None, *, embedded: int | None = None
    ) -> EvidenceFeatures:
        """Computes the features of evidence with at least one sentence.

        Args:
            found: The evidence.
            timeout_s: Optional; a lower limit on the wait for the embedding service.
            embedded: Maximum number of embedded units; the others are ranked without a cosine.
                None: MAX_EMBEDDED_SENTENCES, or none with a judge.
        """
        result = found.reply.results[0]
        # Three passes process the same sentences; the cache stems each only once.
        words_of = cache(_analyser(result.language or NO_LANGUAGE).words)
        stems = {words_of(wrong)[0]: words_of(right)[0] for wrong, right in found.misspelt.items()}
        asked = [replace(term, word=stems.get(term.word, term.word)) for term in result.terms]
        terms = weigh_terms(asked, result.language)
        documents = found.documents()
        unknown = np.full(len(found.units), np.nan, np.float32)
        by_words = sentence_features.compute_features(
            terms, documents, words_of, unknown, query=found.question
        )
        scores = DEFAULT_CALIBRATION.rank(by_words)
        texts = [unit.text for unit in found.units]
        read = sentence_features.select_shortlist(scores, MAX_JUDGED_SENTENCES, texts)
        judged, unjudged = await self._judged(found, read, timeout_s)
        if embedded is None:
            embedded = MAX_EMBEDDED_SENTENCES if judged is None else 0
        cosines, lacking = unknown, ""
        if embedded:
            shortlist = sentence_features.select_shortlist(scores, embedded, texts)
            cosines, lacking = await self._cosines(found, shortlist, timeout_s)
        features = sentence_features.add_cosines(by_words, documents, cosines)
        if judged is not None:
            features = sentence_features.add_judgements(features, judged)
        degraded = "; ".join(filter(None, (lacking, unjudged)))
        return EvidenceFeatures(
            features,
            confidence.compute_signals(
                found.question, terms, found.reply.hits, documents, words_of, features
            ),
            degraded,
        )

    async def _search(
        self,
        question: c.Question,
        k: int,
        payload: frozenset[c.PayloadField],
        collection: str,
        timeout_s: float | None,
    ) -> c.SearchReply:
        return await self._retriever.search(
            c.Query(text=question.text),
            c.SearchOptions(
                k=k,
                mode=question.mode,
                level=c.HitLevel.CHUNK,
                unit=question.session_id,
                payload=payload,
                filter=question.filter,
                explain=True,
                # Quotes in a question say nothing about the words of its answer.
                plain_text=True,
                min_watermark=question.min_watermark,
            ),
            collection=collection,
            timeout_s=timeout_s,
        )

    async def _embed_question(self, question: str) -> c.Embeddings | None:
        """Embeds a question; None if that fails, because `_cosines` tries again and reports why.

        With a judge, no cosine is needed, unless it is overloaded: then `_cosines` embeds it.
        """
        if self._embedder is None or self._judge is not None:
            return None
        try:
            return await self._embedder.embed(
                [question], c.TextRole.QUERY, timeout_s=self._embed_timeout_s
            )
        except NearlineError:
            return None

    async def _judged(
        self, found: Evidence, shortlist: NDArray[np.int64], timeout_s: float | None
    ) -> tuple[NDArray[np.float32] | None, str]:
        """Returns the logit of each sentence, (n,), NaN outside the shortlist; None if not judged.

        Returns: The logits, and the reason if there are none although there is a judge.
        """
        if self._judge is None:
            return None, ""
        texts = [(found.context(row), found.units[row].text) for row in shortlist.tolist()]
        limit_s = self._embed_timeout_s
        if timeout_s is not None:
            limit_s = min(limit_s, timeout_s)
        scores, why = await self._judge.score(found.question, texts, limit_s)
        if scores is None:
            return None, why
        judged = np.full(len(found.units), np.nan, np.float32)
        judged[shortlist] = scores
        return judged, ""

    async def _cosines(
        self, found: Evidence, shortlist: NDArray[np.int64], timeout_s: float | None
    ) -> tuple[NDArray[np.float32], str]:
        """Returns the cosine of each sentence to the question; NaN outside the shortlist.

        Returns: (n,) float32, and the reason if there are none, otherwise an empty text.
        """
        texts = [unit.text for unit in found.units]
        cosines = np.full(len(texts), np.nan, np.float32)
        fingerprint = found.reply.info.fingerprint
        if self._embedder is None or not fingerprint:
            return cosines, "sentences are ranked by words: there is no embedding service"
        limit_s = self._embed_timeout_s
        if timeout_s is not None:
            limit_s = min(limit_s, timeout_s)
        embed = self._embedder.embed
        # Two requests, with the short and the long sentences: less padding, and one core for each.
        rows = sorted(shortlist.tolist(), key=lambda row: len(texts[row]))
        middle = len(rows) // 2 + 1
        halves = [half for half in (rows[:middle], rows[middle:]) if half]
        try:
            read = await asyncio.gather(
                *(
                    embed(
                        [texts[row] for row in half],
                        expected_fingerprint=fingerprint,
                        timeout_s=limit_s,
                    )
                    for half in halves
                )
            )
            vectors = found.question_vectors
            if vectors is None or vectors.fingerprint != fingerprint:
                vectors = await embed(
                    [found.question],
                    c.TextRole.QUERY,
                    expected_fingerprint=fingerprint,
                    timeout_s=limit_s,
                )
        except NearlineError as error:
            # Words alone can still rank; the reply reports the degradation.
            return cosines, f"sentences are ranked by words: {error.message}"
        for half, one in zip(halves, read, strict=True):
            cosines[half] = one.vectors @ vectors.vectors[0]
        return cosines, ""


@lru_cache(16)
def _analyser(language: str) -> Analyser:
    # The question's terms have no stop words, so stop words in sentences do no harm.
    return Analyser(language)
