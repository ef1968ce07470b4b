"""Lexical search in plain Python: the contract once more, slowly.

Texts are those of `lexical_texts`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from retrieval.index.lexical.bm25_index import K1, B
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.protocols.shard import TITLE_SCORE
from tests.retrieval.index.lexical.lexical_texts import (
    ENGLISH,
    STOP_WORDS,
    TOKENS,
    stem,
    variants_of,
    words_of,
)
from tests.retrieval.index.lexical.small_indexes import ChunkName, Document, Found


@lru_cache(None)
def edits_between(one: str, other: str) -> int:
    """Returns the optimal string alignment distance, by its recurrence."""
    table = [[i + j for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (one[i - 1] != other[j - 1]),
            )
            if one[i - 2 : i] == other[j - 2 : j][::-1] and min(i, j) > 1:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


def _bare(stem: str) -> str:
    return stem.rpartition("/")[2]


class Like(NamedTuple):
    """A stem that may stand for a word of a query, and the share of its score that counts.

    more: Further stems, which must be there, too, and whose scores are added.
    """

    stem: str
    weight: float = 1.0
    more: tuple[str, ...] = ()

    def stems(self) -> list[str]:
        return [self.stem, *self.more]


@dataclass
class Wanted:
    """A word of a query: the stems that may stand for it, its own first."""

    likes: list[Like]
    times: int = 1


class ChunkWords(NamedTuple):
    """Weighted occurrences of the stems of a chunk, and its weighted length."""

    counts: Mapping[str, float]
    length: float


@dataclass
class Reference:
    """A collection: documents with the statistics of others, which are its own if there are none.

    base: The documents of the snapshot, if `documents` are live ones. synonyms: See
    SYNONYMS. languages: Of attributes; see LANGUAGES.
    """

    documents: Sequence[Document]
    weights: Mapping[str, float] = field(default_factory=dict)
    base: Sequence[Document] = ()
    synonyms: Sequence[SynonymRule] = ()
    languages: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.others = sorted(
            {self.languages[n] for n in self.languages if n in self.weights} - {ENGLISH}
        )
        self.every = [ENGLISH, *self.others]
        self.chunks = self._chunks(self.documents)
        known = self._chunks(self.base) if self.base else self.chunks
        self.total = len(known)
        self.mean = math.fsum(one.length for one in known.values()) / len(known) or 1.0
        self.found_in = Counter(word for one in known.values() for word in one.counts)
        self.own = {word for one in self.chunks.values() for word in one.counts}
        self.forms: dict[str, set[str]] = {}
        self.new_forms: dict[str, set[str]] = {}
        for one in self.every:
            self.forms[one] = self._forms(self.base or self.documents, one)
            forms = self._forms(self.documents, one)
            self.new_forms[one] = {form for form in forms if not self.found_in[stem(form, one)]}

    def scores(self, query: str) -> Found:
        """Returns the BM25 score of each chunk with a word of the query."""
        found: Found = {}
        wanted, _ = self._parsed(query)
        for name, chunk in self.chunks.items():
            total = np.float32(0)
            for one in wanted:
                shares = [
                    sum((np.float32(self._share(s, chunk)) for s in like.stems()), np.float32(0))
                    * np.float32(like.weight)
                    for like in one.likes
                    if all(chunk.counts.get(stem) for stem in like.stems())
                ]
                if shares:
                    total += max(shares) * np.float32(one.times)
            if total:
                found[name] = float(total)
        return found

    def levels(self, query: str) -> Found:
        """Returns the level of each chunk whose title matches the query."""
        found: Found = {}
        for number, document in enumerate(self.documents):
            level = self._level(query, document)
            if level:
                found |= {(number, chunk): level for chunk in range(len(document.chunks))}
        return found

    def search(self, query: str) -> Found:
        """Returns the score of each chunk that the query finds."""
        step = TITLE_SCORE * sum(one.times for one in self._parsed(query)[0])
        scores, levels = self.scores(query), self.levels(query)
        return {
            name: scores.get(name, 0.0) + step * levels.get(name, 0.0)
            for name in {**scores, **levels}
        }

    def _level(self, query: str, document: Document) -> float:
        _, required = self._parsed(query)
        split = words_of(document.title)
        content = {stem(word) for word in split if word not in STOP_WORDS[ENGLISH]}
        title = {stem(w) for w in (*words_of(document.title), *variants_of(document.title))}
        plain = [[like.stems() for like in likes if like.weight == 1] for likes in required]
        every = [[like.stems() for like in likes] for likes in required]
        fits = [
            all(any(title.issuperset(stems) for stems in one) for one in choices)
            for choices in (plain, every)
        ]
        if not required or not any(fits):
            return 0.0
        choices = plain if fits[0] else every
        matched: set[str] = set()
        for likes in choices:
            matched.update(next(stems for stems in likes if title.issuperset(stems)))
        level = (2.0 if len(content) <= len(matched) else 1.0) - (0.0 if fits[0] else 0.5)
        if "".join(words_of(query)) == "".join(words_of(document.title)):
            level = 3.0
        if level <= 1:
            return level
        accented = [stem(word) for word in variants_of(query) if word == "björk"]
        more = np.float32(level)
        if accented:
            more += np.float32(0.25 if title.issuperset(accented) else 0)
        return float(more + np.float32(0.2) * np.float32(document.popularity))

    def _parsed(self, query: str) -> tuple[list[Wanted], list[list[Like]]]:
        """Returns the clauses that count for the score, and those that a title must match."""
        split = [
            word for token in query.split() for word in TOKENS[token].asked or TOKENS[token].words
        ]
        asked = [word for word in split if word not in STOP_WORDS[ENGLISH]] or split
        short = len(asked) <= 10
        compounds = [
            (TOKENS[token].words, TOKENS[token].compound)
            for token in query.split()
            if TOKENS[token].compound
        ]
        if short:
            compounds += [
                (pair, "".join(pair)) for pair in pairwise(asked) if self._known("".join(pair))
            ]
        wanted = {
            word: Wanted([*self._itself(word), *(self._likes(word) if short else [])], times)
            for word, times in Counter(asked).items()
        }
        # Stop words of the collection that are words in another language.
        stops = {
            word: Wanted(self._itself(word)[1:], times)
            for word, times in Counter(split).items()
            if word not in wanted
        }
        for language in self.every:
            words = [word for word in split if word not in STOP_WORDS[language]]
            if language == ENGLISH:
                words = asked
            if len(words) <= 32:
                for word, like in self._synonyms_of(words, language):
                    {**stops, **wanted}[word].likes.append(like)
        required: dict[str, list[Like]] = {}
        for word, one in wanted.items():
            joined = [
                like for parts, whole in compounds if word in parts for like in self._itself(whole)
            ]
            required.setdefault(stem(word), []).extend([*one.likes, *joined])
        counted = {
            whole: Wanted(self._itself(whole))
            for parts, whole in compounds
            for part in parts
            if part in wanted and (not whole.isalpha() or not self.found_in[stem(part)])
        }
        counting = [*wanted.values(), *counted.values(), *(w for w in stops.values() if w.likes)]
        return counting, list(required.values())

    def _itself(self, word: str) -> list[Like]:
        """Returns a word in the language of the collection, then in others."""
        others = [one for one in self.others if word not in STOP_WORDS[one]]
        return [Like(stem(word)), *(Like(stem(word, one)) for one in others)]

    def _likes(self, word: str) -> Iterator[Like]:
        """Yields the words that a misspelt one may stand for."""
        if self._known(word):
            return
        for one in self.every:
            if word in STOP_WORDS[one] or _bare(stem(word, one)) in self._synonyms(one):
                return
        is_new = self.base and not any(like.stem in self.own for like in self._itself(word))
        most = 0 if not word.isalpha() or len(word) < 4 else 1 if len(word) < 8 else 2
        seen = {like.stem for like in self._itself(word)}
        for known in (True, False):
            for language in self.every:
                forms = self.forms[language] if known else self.new_forms[language]
                near = [(edits_between(word, form), form) for form in forms]
                near.sort(
                    key=lambda one: (
                        (one[0], -self.found_in[stem(one[1], language)], one[1]) if known else one
                    )
                )
                for edits, form in [one for one in near if 0 < one[0] <= most][:16]:
                    own = stem(form, language)
                    if own not in seen and (known or is_new):
                        seen.add(own)
                        yield Like(own, (1, 0.7, 0.4)[edits])

    def _synonyms_of(self, asked: Sequence[str], language: str) -> Iterator[tuple[str, Like]]:
        """Yields words of a query, each with a synonym of it, or of words with it."""
        synonyms, first = self._synonyms(language), 0
        while first < len(asked):
            stops = range(len(asked), first, -1)
            keys = {
                stop: "".join(_bare(stem(word, language)) for word in asked[first:stop])
                for stop in stops
            }
            stop = next((one for one in stops if keys[one] in synonyms), 0)
            own = asked[first:stop]
            idfs = {word: self._idf(stem(word, language)) for word in own}
            for stems in synonyms.get(keys.get(stop, ""), []):
                if stems != [stem(word, language) for word in own]:
                    distinct = list(dict.fromkeys(stems))
                    most = max(sum(idfs.values()), sum(map(self._idf, distinct)))
                    for word, idf in idfs.items():
                        yield word, Like(distinct[0], 0.8 * idf / most, tuple(distinct[1:]))
            first = stop or first + 1

    def _synonyms(self, language: str) -> dict[str, list[list[str]]]:
        """Returns the synonyms, as stems, of each entry, without spaces."""
        found: dict[str, list[list[str]]] = {}
        for _, left, right in self.synonyms:
            for entry in left:
                others = [self._entry(other, language) for other in right or left]
                key = "".join(map(_bare, self._entry(entry, language)))
                found.setdefault(key, []).extend(others)
        return found

    @staticmethod
    def _entry(entry: str, language: str) -> list[str]:
        words = [w for token in entry.split() for w in TOKENS[token].asked or TOKENS[token].words]
        kept = [word for word in words if word not in STOP_WORDS[language]] or words
        return [stem(word, language) for word in kept]

    def _known(self, word: str) -> bool:
        return any(self.found_in[like.stem] > 0 for like in self._itself(word))

    def _share(self, word: str, chunk: ChunkWords) -> float:
        f, idf = float(np.float32(chunk.counts[word])), self._idf(word)
        return idf * f / (f + K1 * (1 - B + B * chunk.length / self.mean))

    def _idf(self, word: str) -> float:
        n = self.found_in[word]
        return math.log(1 + (self.total - n + 0.5) / (n + 0.5))

    def _fields(self, document: Document) -> list[tuple[str, float, str]]:
        found = [(document.title, self.weights.get("title", 1.0), ENGLISH)]
        for name, weight in self.weights.items():
            value = document.attributes.get(name) if name not in ("title", "text") else None
            values = value if isinstance(value, list) else [value]
            language = self.languages.get(name, ENGLISH)
            found += [(one, weight, language) for one in values if one is not None]
        return found

    def _chunks(self, documents: Sequence[Document]) -> dict[ChunkName, ChunkWords]:
        found: dict[ChunkName, ChunkWords] = {}
        for number, document in enumerate(documents):
            for chunk, text in enumerate(document.chunks):
                counts: Counter[str] = Counter()
                length = 0.0
                fields = [*self._fields(document), (text, self.weights.get("text", 1.0), ENGLISH)]
                for place, (one, weight, language) in enumerate(fields):
                    for word in words_of(one):
                        # Stop words are searched in titles alone, and count for no length.
                        if word not in STOP_WORDS[language]:
                            length += weight
                        elif place:
                            continue
                        counts[stem(word, language)] += weight  # type: ignore[assignment]
                    for word in variants_of(one):
                        counts[stem(word, language)] += weight  # type: ignore[assignment]
                found[number, chunk] = ChunkWords(counts, length)
        return found

    def _forms(self, documents: Sequence[Document], language: str) -> set[str]:
        """Returns the words of documents in a language as they are written."""
        found = set()
        for document in documents:
            fields = self._fields(document)
            fields += [(text, 1.0, ENGLISH) for text in document.chunks]
            for place, (text, _, own) in enumerate(fields):
                if own == language:
                    stop_words = STOP_WORDS[language] if place else ()
                    found |= {word for word in words_of(text) if word not in stop_words}
                    found |= set(variants_of(text))
        return {form for form in found if form.isalpha() and 3 <= len(form) <= 32}
