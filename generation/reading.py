"""Reads the evidence for a question: finds it, and measures each sentence against the question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from generation import confidence, scoring
from generation.evidence import Source, passages_of, sources
from nearline import contract as c
from nearline.errors import NearlineError
from retrieval.lexical.analysis import NO_LANGUAGE, Analyser

_CHUNKS_PER_DOCUMENT = 4
# Sentences embedded for a question: 16 of them are some 500 tokens, about 35 ms on two cores.
_EMBEDDED = 16
_EMBED_TIMEOUT_S = 2.0
_PAYLOAD = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT})


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: its reply, and the documents made of the chunks, best first."""

    question: str
    reply: c.SearchReply
    sources: Sequence[Source]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found, measured.

    features: (n, f) of each sentence of all sources in order, see `scoring.features`. signals: See
    `confidence.signals`. degraded: Why sentences were ranked by words alone; empty: they were not.
    """

    features: NDArray[np.float64]
    signals: dict[str, float]
    degraded: str


class Reader:
    """Finds and reads evidence.

    Args:
        retriever: Finds chunks.
        embedder: Embeds sentences, with the model of the collection; None: words alone rank them.
    """

    def __init__(self, retriever: c.Retriever, embedder: c.Embedder | None) -> None:
        self._retriever = retriever
        self._embedder = embedder

    async def find(self, question: c.Question, collection: str, timeout_s: float | None) -> Found:
        """Finds the chunks nearest to a question, and the documents that they belong to."""
        reply = await self._retriever.search(
            c.Query(text=question.text),
            c.SearchOptions(
                k=question.documents * _CHUNKS_PER_DOCUMENT,
                mode=question.mode,
                level=c.HitLevel.CHUNK,
                payload=_PAYLOAD,
                filter=question.filter,
                explain=True,
            ),
            collection=collection,
            timeout_s=timeout_s,
        )
        return Found(question.text, reply, sources(reply.hits, question.documents))

    async def read(self, found: Found, timeout_s: float | None) -> Reading:
        """Measures what was found; at least one sentence was."""
        result = found.reply.results[0]
        terms = [scoring.Term(term.word, term.idf) for term in result.terms]
        # Three passes look at the same sentences: each is stemmed once.
        words_of = cache(_analyser(result.language or NO_LANGUAGE).words)
        documents = [source.document() for source in found.sources]
        shortlist = scoring.shortlist(terms, documents, words_of, _EMBEDDED)
        cosines, degraded = await self._cosines(found, shortlist, timeout_s)
        return Reading(
            scoring.features(terms, documents, words_of, cosines, query=found.question),
            confidence.signals(terms, found.reply.hits, documents, words_of, cosines),
            degraded,
        )

    async def _cosines(
        self, found: Found, shortlist: NDArray[np.int64], timeout_s: float | None
    ) -> tuple[NDArray[np.float32], str]:
        """Gives the cosine of each sentence to the question, NaN but for the shortlist.

        Returns: (n,) float32, and why there are none; empty where there are.
        """
        texts = [passage.text for passage in passages_of(found.sources)]
        cosines = np.full(len(texts), np.nan, np.float32)
        fingerprint = found.reply.info.fingerprint
        if self._embedder is None or not fingerprint:
            return cosines, "sentences are ranked by words: there is no embedding service"
        limit_s = _EMBED_TIMEOUT_S if timeout_s is None else min(_EMBED_TIMEOUT_S, timeout_s)
        embed = self._embedder.embed
        try:
            asked, read = await asyncio.gather(
                embed(
                    [found.question],
                    c.TextRole.QUERY,
                    expected_fingerprint=fingerprint,
                    timeout_s=limit_s,
                ),
                embed(
                    [texts[row] for row in shortlist.tolist()],
                    expected_fingerprint=fingerprint,
                    timeout_s=limit_s,
                ),
            )
        except NearlineError as error:
            # Words alone still rank; who asked is told.
            return cosines, f"sentences are ranked by words: {error.message}"
        cosines[shortlist] = read.vectors @ asked.vectors[0]
        return cosines, ""


@lru_cache(16)
def _analyser(language: str) -> Analyser:
    # Stop words are not among the question's terms, so here they may stay.
    return Analyser(language)
