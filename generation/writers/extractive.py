"""Answers made of sentences from the evidence, word for word; needs no language model."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generation.checks.citations import clean_text
from generation.evidence.sources import EvidenceSource, Passage, Span, list_passages
from generation.protocols.writer import AnswerPiece, AnswerTask, WriterEnd, WriterEvent
from nearline.sentences import estimate_tokens

EXTRACTIVE = "extractive"

# Sentences are added until one of them is evidence with this probability, while the next one is
# with at least that. Source: SelQA train, so that answers have about 260 characters (see
# docs/quality.md).
_ENOUGH, _LEAST = 0.95, 0.06
_MOST_SENTENCES = 3
_STEEPEST = 50.0
# Listings and tables are one long sentence: used only if no short one is as good.
_LONG_TOKENS, _LONG_LOGITS = 96, 2.5
# Sentences this close, with only whitespace between them, form one span.
_GAP = 2
_TITLE_CHARACTERS = 64
# Words of a title that name a subject.
_SUBJECT = re.compile(r"\w{4,}")


class SentenceSelection(NamedTuple):
    """spans: In reading order. truncated: Whether good sentences were left out for length."""

    spans: Sequence[Span]
    truncated: bool


class ExtractiveWriter:
    """Writes the best sentences of the evidence; a `Writer`."""

    name = EXTRACTIVE

    async def write(self, task: AnswerTask) -> AsyncGenerator[WriterEvent, None]:
        """Yields the sentences in reading order; see `Writer.write`."""
        sources = task.found.sources
        chosen = select_sentences(sources, task.scores, task.max_tokens)
        tokens = 0
        before: Span | None = None
        for span in chosen.spans:
            said = clean_text(sources[span.source].text(span))
            title = clean_text(sources[span.source].best.title or "")
            named = before is None or before.source != span.source
            if named and 0 < len(title) <= _TITLE_CHARACTERS and not _shares_word(title, said):
                # A sentence of a manual seldom names its subject; the title does.
                said = f"{title}: {said}"
            yield AnswerPiece(f"{' ' if before else ''}{said}", [span], [1.0])
            tokens += estimate_tokens(said)
            before = span
        yield WriterEnd(chosen.truncated, 0, tokens)


def select_sentences(
    sources: Sequence[EvidenceSource], scores: NDArray[np.float64], max_tokens: int
) -> SentenceSelection:
    """Selects the fewest sentences that hold the evidence, and puts them in reading order.

    The source of the best sentence comes first; within a source, sentences keep their order.

    Args:
        sources: The evidence.
        scores: (n,) logit of each sentence of all sources, in order.
        max_tokens: Maximum tokens, by `estimate_tokens`; the best sentence is always included.
    """
    passages = list_passages(sources)
    lengths = np.array([estimate_tokens(passage.text) for passage in passages])
    scores = scores - np.where(lengths > _LONG_TOKENS, _LONG_LOGITS, 0.0)
    probabilities = 1 / (1 + np.exp(-np.clip(scores, -_STEEPEST, _STEEPEST)))
    order = np.argsort(-scores, kind="stable")
    taken: list[int] = []
    texts: set[str] = set()
    spent, truncated, missing = 0, False, 1.0
    for at in order.tolist():
        passage = passages[at]
        enough = missing <= 1 - _ENOUGH or probabilities[at] < _LEAST
        if taken and (enough or len(taken) == _MOST_SENTENCES):
            break
        # A sentence that two documents share is used once.
        said = " ".join(passage.text.lower().split())
        tokens = int(lengths[at])
        if said in texts or (taken and tokens > _LONG_TOKENS):
            continue
        if taken and spent + tokens > max_tokens:
            truncated = True
            continue
        taken.append(at)
        texts.add(said)
        spent += tokens
        missing *= 1 - probabilities[at]
    ranks: dict[int, int] = {}
    for at in taken:
        ranks.setdefault(passages[at].document, len(ranks))
    read = sorted(taken, key=lambda at: (ranks[passages[at].document], passages[at].start))
    return SentenceSelection(list(_spans([passages[at] for at in read])), truncated)


def _shares_word(title: str, sentence: str) -> bool:
    """Returns whether a sentence has a word of a title, and so names the subject itself."""
    words = {word.casefold() for word in _SUBJECT.findall(title)}
    return title in sentence or not words.isdisjoint(_SUBJECT.findall(sentence.casefold()))


def _spans(passages: Sequence[Passage]) -> Iterator[Span]:
    run: list[Passage] = []
    for passage in passages:
        near = run and run[-1].document == passage.document and run[-1].chunk == passage.chunk
        if near and 0 <= passage.start - run[-1].end <= _GAP:
            run.append(passage)
            continue
        if run:
            yield Span(run)
        run = [passage]
    if run:
        yield Span(run)
