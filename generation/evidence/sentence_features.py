"""Computes features of sentences that predict whether each is evidence for a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from generation.evidence.logistic import Floats
from generation.evidence.question_names import (
    asked_identifiers,
    asked_names,
    lacks_identifiers,
    lacks_names,
)

WordsOf: TypeAlias = Callable[[str], list[str]]

# Features of the content of a sentence and its document.
CONTENT = (
    "coverage",  # share of the query's idf mass that it holds
    "coverage_to_best",  # coverage as a share of the best in its document
    "coverage_beyond_title",  # coverage by terms that the title of its document lacks
    "grams",  # share of the query's runs of five characters
    "cosine",  # to the query
    "cosine_standing",  # cosine in standard deviations from its document's mean
    "length",  # log(1 + words)
    "numbers",  # log(1 + runs of digits)
    "finding",  # log(1 + English words that report or compare)
    "purpose",  # log(1 + English words that announce an aim, a method or a gap)
    "document_ratio",  # score as a share of the best one's
    "document_rank",  # log(1 + rank), 0 for the best
    "title_coverage",  # share of the query's idf mass that the title and the headings hold
    "chunk_rank",  # log(1 + rank of its chunk), 0 for the best
    "names_missing",  # share of the query's names and numbers that it and its headings lack
    "identifiers_missing",  # likewise of options and names of code
)
# By a model that reads the question and the sentence together; see `sentence_judge`.
JUDGED = ("answer",)  # Logit that it answers the question.
# Position in the document. It depends on the genre, so the default model does not use it.
POSITION = ("position", "position_last", "sentence_count")
FEATURES: tuple[str, ...] = CONTENT + JUDGED + POSITION

_GRAM = 5
_FINDING = re.compile(
    r"\b(?:results?\b|show(?:s|ed|n)?\b|found\b|finding|demonstrat|reveal|suggest|indicat|conclu"
    r"|significant|associated|increas|decreas|reduc|higher\b|lower\b|than\b|therefore\b|thus\b)"
)
_PURPOSE = re.compile(
    r"\b(?:aims?\b|aimed\b|objective|purpose|whether\b|methods?\b|unclear\b|unknown\b|however\b"
    r"|(?:to|we) (?:determin|investigat|examin|stud|assess|evaluat|test|explor|compar|use|perform))"
)


class QueryTerm(NamedTuple):
    """A stem of the query, and its idf (> 0)."""

    word: str
    idf: float


class Sentence(NamedTuple):
    """A row of `compute_features`: index of the document, code points start..end-1 of its text."""

    document: int
    start: int
    end: int


class EvidenceDocument(NamedTuple):
    """A retrieved document, in units.

    text: Its units. score: Larger is better. sentences: Start and end of each unit in `text`, in
    code points. contexts: Title and headings above each unit; empty if there is only the title.
    chunk_ranks: Rank of the chunk of each unit among all chunks that were found, from 0; empty if
    there is one chunk.
    """

    title: str
    text: str
    score: float
    sentences: Sequence[tuple[int, int]]
    contexts: Sequence[str] = ()
    chunk_ranks: Sequence[int] = ()


def list_sentences(documents: Sequence[EvidenceDocument]) -> list[Sentence]:
    """Lists the sentences of all documents, in the order of the rows of `compute_features`."""
    return [Sentence(at, *span) for at, one in enumerate(documents) for span in one.sentences]


def list_contexts(documents: Sequence[EvidenceDocument]) -> list[str]:
    """Lists the context of each sentence, likewise."""
    return [
        context
        for document in documents
        for context in document.contexts or [document.title] * len(document.sentences)
    ]


def character_runs(text: str) -> set[str]:
    """Returns the distinct runs of five characters of a text, ignoring case and white space."""
    signs = plain(text)
    return {signs[at : at + _GRAM] for at in range(len(signs) - _GRAM + 1)}


def compute_features(
    terms: Sequence[QueryTerm],
    documents: Sequence[EvidenceDocument],
    words_of: WordsOf,
    cosines: NDArray[np.float32],
    *,
    query: str = "",
) -> Floats:
    """Computes FEATURES for each sentence of each document.

    Args:
        terms: The query's distinct stems without stop words.
        words_of: Returns the stems of a text, made in the same way as those of `terms`.
        cosines: (n,) cosine of each sentence to the query; NaN if it was not embedded. Such a
            sentence was not shortlisted, and counts as the lowest of those that were.
        query: Text of the query, for runs of characters; if empty, that feature is 0.
    Returns: (n, f), in the order of `list_sentences`; cosine columns are NaN if no cosine is known.
    """
    sentences, contexts = list_sentences(documents), list_contexts(documents)
    said = [documents[at].text[start:end] for at, start, end in sentences]
    owners = np.array([sentence.document for sentence in sentences], np.int64)
    idf = np.array([term.idf for term in terms], np.float64)
    words = [words_of(text) for text in said]
    ratio, rank = _rated(documents)
    held = _held(terms, words)
    titled = _held(terms, [words_of(context) for context in contexts])
    texts = [plain(text) for text in said]
    names, identifiers = asked_names(query), asked_identifiers(query)
    below = [f"{context}\n{text}" for context, text in zip(contexts, said, strict=True)]
    coverage = _share(held, idf)
    best = np.zeros(len(documents))
    np.maximum.at(best, owners, coverage)
    size = np.bincount(owners, minlength=len(documents))
    place, count = np.arange(len(owners)) - (np.cumsum(size) - size)[owners], size[owners]
    columns = {
        "coverage": coverage,
        "coverage_to_best": coverage / np.where(best > 0, best, 1.0)[owners],
        "coverage_beyond_title": _share(held * (1.0 - titled), idf),
        "grams": _grams(query, texts),
        "cosine": np.full(len(owners), np.nan),
        "cosine_standing": np.full(len(owners), np.nan),
        "length": np.log1p([len(sentence) for sentence in words]),
        "numbers": np.log1p([len(re.findall(r"\d+", text)) for text in texts]),
        "finding": np.log1p([len(_FINDING.findall(text)) for text in texts]),
        "purpose": np.log1p([len(_PURPOSE.findall(text)) for text in texts]),
        "document_ratio": ratio[owners],
        "document_rank": np.log1p(rank)[owners],
        "title_coverage": _share(titled, idf),
        "names_missing": np.array([lacks_names(names, text) for text in below]),
        "identifiers_missing": np.array([lacks_identifiers(identifiers, text) for text in below]),
        "chunk_rank": np.log1p(
            [
                rank
                for document in documents
                for rank in document.chunk_ranks or [0] * len(document.sentences)
            ]
        ),
        "answer": np.full(len(owners), np.nan),
        "position": place / np.maximum(count - 1, 1),
        "position_last": place == count - 1,
        "sentence_count": np.log1p(count),
    }
    features = np.stack([columns[name] for name in FEATURES], axis=1).astype(np.float64)
    return add_cosines(features, documents, cosines)


def add_cosines(
    features: Floats, documents: Sequence[EvidenceDocument], cosines: NDArray[np.float32]
) -> Floats:
    """Returns features with the columns of the cosine; see `compute_features` for the arguments."""
    owners = np.array([sentence.document for sentence in list_sentences(documents)], np.int64)
    least = np.fmin.reduce(cosines, initial=np.nan)
    cosine = np.where(np.isnan(cosines), least, cosines).astype(np.float64)
    size = np.bincount(owners, minlength=len(documents))
    added = features.copy()
    added[:, FEATURES.index("cosine")] = cosine
    added[:, FEATURES.index("cosine_standing")] = _standing(cosine, owners, np.maximum(size, 1))
    return added


def add_judgements(features: Floats, judged: NDArray[np.float32]) -> Floats:
    """Returns features with the logits of the judge, (n,).

    NaN is a sentence that was not judged; it counts as the lowest of those that were.
    """
    added = features.copy()
    added[:, FEATURES.index("answer")] = np.where(
        np.isnan(judged), np.fmin.reduce(judged, initial=np.nan), judged
    )
    return added


def select_shortlist(scores: Floats, most: int, texts: Sequence[str]) -> NDArray[np.int64]:
    """Returns the rows of the units to read, ascending; each text once, at most `most`.

    Args:
        scores: (n,) scores of the units by words alone; larger is better.
        most: Maximum number of rows.
        texts: n texts.
    """
    best: dict[str, int] = {}
    for row in np.argsort(-scores, kind="stable").tolist():
        if len(best) == most:
            break
        best.setdefault(texts[row], row)
    return np.sort(np.fromiter(best.values(), np.int64, len(best)))


def _held(terms: Sequence[QueryTerm], words: Sequence[list[str]]) -> Floats:
    """Returns which terms each text contains: (n, t), 0 or 1."""
    held = [term.word in text for text in map(set, words) for term in terms]
    return np.array(held, np.float64).reshape(len(words), len(terms))


def _share(held: Floats, idf: Floats) -> Floats:
    """Returns the share of the total idf in each row of (n, t), 0..1; 0 if there are no terms."""
    return np.asarray(held @ idf / (idf.sum() or 1.0), np.float64)


def _grams(query: str, texts: Sequence[str]) -> Floats:
    """Returns the share of the query's runs of characters in each text; 0 if it is too short."""
    asked = character_runs(query)
    shares = [len(asked & character_runs(text)) / (len(asked) or 1) for text in texts]
    return np.array(shares, np.float64)


def plain(text: str) -> str:
    """Returns a text without differences of case and white space."""
    return " ".join(text.lower().split())


def _standing(values: Floats, owners: NDArray[np.int64], size: NDArray[np.int64]) -> Floats:
    """Returns standard deviations from the document's mean; 0 if all values are equal."""
    apart = values - (np.bincount(owners, values, len(size)) / size)[owners]
    spread = np.sqrt(np.bincount(owners, apart**2, len(size)) / size)
    return np.asarray(apart / np.where(spread < 1e-9, 1.0, spread)[owners], np.float64)


def _rated(documents: Sequence[EvidenceDocument]) -> tuple[Floats, NDArray[np.int64]]:
    """Returns scores as shares of the best (1 if that is not positive), and ranks from 0."""
    scores = np.array([document.score for document in documents], np.float64)
    best = scores.max(initial=0.0)
    ranks = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")
    return (scores / best if best > 0 else np.ones(len(scores))), ranks
