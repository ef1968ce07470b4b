"""Lexical search in plain Python: the contract once more, slowly.

Texts are made of TOKENS, whose words are written down by hand.
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
import Stemmer
from hypothesis import strategies as st

from retrieval.index.lexical.bm25_index import K1, B
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.protocols.shard import TITLE_SCORE
from tests.retrieval.index.lexical.small_indexes import ChunkName, Document, Found

STOP_WORDS = {"the", "who", "a"}
_STEMMER = Stemmer.Stemmer("english")


class Token(NamedTuple):
    """The parts of a piece of text between spaces.

    words: As texts are split. variants: Further words by which it is found. parts: The words that
    its compound stands for, and the compound. asked: Words of a query, if not `words`.
    """

    words: Sequence[str]
    variants: Sequence[str] = ()
    compound: str = ""
    asked: Sequence[str] = ()


def _plain(text: str) -> dict[str, Token]:
    return {word: Token([word.lower()]) for word in text.split()}


TOKENS: Mapping[str, Token] = {
    **_plain("apple Apples pear plum PLUMS the Who a king kings x"),
    **_plain("metallica metalica mettalica metallic metalicas megtallica"),
    **_plain("spider man spiderman spidermann mann xr xr200 200 bjork bjrok"),
    # Known parts, unknown parts, stop words.
    "spider-man": Token(["spider", "man"], ["spiderman"], "spiderman"),
    "XR-200": Token(["xr", "200"], ["xr200"], "xr200"),
    "a_king": Token(["a", "king"], ["aking"], "aking"),
    "king's": Token(["king"]),
    "Björk": Token(["bjork"], ["björk"]),
    "東京都": Token(["東", "京", "都"], ["東京", "京都"], asked=["東京", "京都"]),
    "京": Token(["京"]),
    "京都": Token(["京", "都"], ["京都"], asked=["京都"]),
    "…": Token([]),
}
# Rules of one and several words, both ways and one way, of known and misspelt words.
SYNONYMS = st.lists(
    st.sampled_from(
        [
            SynonymRule(1, ["apple", "pear", "king plum"]),
            SynonymRule(2, ["spider-man"], ["xr200", "metallica king", "the Who"]),
            SynonymRule(3, ["king plum x"], ["Björk"]),
            SynonymRule(4, ["metalica"], ["京都", "spider-man"]),
            SynonymRule(5, ["the Who"], ["a_king king"]),
            SynonymRule(6, ["x king", "200"], ["200", "XR-200"]),
        ]
    ),
    max_size=4,
)
QUERY_TEXTS = st.lists(st.sampled_from(sorted(TOKENS)), max_size=5).map(" ".join)
TITLES = st.one_of(st.just(""), QUERY_TEXTS)
_POPULARITY = st.sampled_from([0.0, 0.25, 1.0])
_LABELS = st.fixed_dictionaries(
    {}, optional={"label": QUERY_TEXTS, "labels": st.lists(QUERY_TEXTS)}
)
DOCUMENTS = st.lists(
    st.builds(
        Document, TITLES, st.lists(QUERY_TEXTS, min_size=1, max_size=2), _LABELS, _POPULARITY
    ),
    min_size=1,
    max_size=8,
)
WEIGHTS = st.sampled_from(
    [{}, {"title": 2.5, "labels": 0.75}, {"text": 0.3, "title": 1.7, "label": 1.0}]
)


def words_of(text: str) -> list[str]:
    return [word for token in text.split() for word in TOKENS[token].words]


def variants_of(text: str) -> list[str]:
    return [word for token in text.split() for word in TOKENS[token].variants]


@lru_cache(None)
def stem(word: str) -> str:
    return str(_STEMMER.stemWord(word))


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
    SYNONYMS.
    """

    documents: Sequence[Document]
    weights: Mapping[str, float] = field(default_factory=dict)
    base: Sequence[Document] = ()
    synonyms: Sequence[SynonymRule] = ()

    def __post_init__(self) -> None:
        self.chunks = self._chunks(self.documents)
        known = self._chunks(self.base) if self.base else self.chunks
        self.total = len(known)
        self.mean = math.fsum(one.length for one in known.values()) / len(known) or 1.0
        self.found_in = Counter(word for one in known.values() for word in one.counts)
        self.forms = self._forms(self.base or self.documents)
        self.own = {word for one in self.chunks.values() for word in one.counts}
        self.new_forms = {
            form for form in self._forms(self.documents) if not self.found_in[stem(form)]
        }

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
        content = {stem(word) for word in words_of(document.title) if word not in STOP_WORDS}
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
        asked = [
            word for token in query.split() for word in TOKENS[token].asked or TOKENS[token].words
        ]
        asked = [word for word in asked if word not in STOP_WORDS] or asked
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
            word: Wanted([Like(stem(word)), *(self._likes(word) if short else [])], times)
            for word, times in Counter(asked).items()
        }
        if len(asked) <= 32:
            for word, like in self._synonyms_of(asked):
                wanted[word].likes.append(like)
        required: dict[str, list[Like]] = {}
        for word, one in wanted.items():
            joined = [Like(stem(whole)) for parts, whole in compounds if word in parts]
            required.setdefault(stem(word), []).extend([*one.likes, *joined])
        counted = {
            whole: Wanted([Like(stem(whole))])
            for parts, whole in compounds
            for part in parts
            if part in wanted and (not whole.isalpha() or not self._known(part))
        }
        return [*wanted.values(), *counted.values()], list(required.values())

    def _likes(self, word: str) -> Iterator[Like]:
        """Yields the words that a misspelt one may stand for."""
        if self._known(word) or word in STOP_WORDS or stem(word) in self._synonyms():
            return
        found = [(edits_between(word, form), form) for form in self.forms]
        found.sort(key=lambda one: (one[0], -self.found_in[stem(one[1])], one[1]))
        new = sorted((edits_between(word, form), form) for form in self.new_forms)
        most = 0 if not word.isalpha() or len(word) < 4 else 1 if len(word) < 8 else 2
        groups = [found, new if self.base and stem(word) not in self.own else []]
        seen = {stem(word)}
        for group in groups:
            for edits, form in [one for one in group if 0 < one[0] <= most][:16]:
                if stem(form) not in seen:
                    seen.add(stem(form))
                    yield Like(stem(form), (1, 0.7, 0.4)[edits])

    def _synonyms_of(self, asked: Sequence[str]) -> Iterator[tuple[str, Like]]:
        """Yields words of a query, each with a synonym of it, or of words with it."""
        synonyms, first = self._synonyms(), 0
        while first < len(asked):
            stops = range(len(asked), first, -1)
            keys = {stop: "".join(map(stem, asked[first:stop])) for stop in stops}
            stop = next((one for one in stops if keys[one] in synonyms), 0)
            own = asked[first:stop]
            idfs = {word: self._idf(stem(word)) for word in own}
            for stems in synonyms.get(keys.get(stop, ""), []):
                if stems != list(map(stem, own)):
                    distinct = list(dict.fromkeys(stems))
                    most = max(sum(idfs.values()), sum(map(self._idf, distinct)))
                    for word, idf in idfs.items():
                        yield word, Like(distinct[0], 0.8 * idf / most, tuple(distinct[1:]))
            first = stop or first + 1

    def _synonyms(self) -> dict[str, list[list[str]]]:
        """Returns the synonyms, as stems, of each entry, without spaces."""
        found: dict[str, list[list[str]]] = {}
        for _, left, right in self.synonyms:
            for entry in left:
                others = [self._entry(other) for other in right or left]
                found.setdefault("".join(self._entry(entry)), []).extend(others)
        return found

    @staticmethod
    def _entry(entry: str) -> list[str]:
        words = [w for token in entry.split() for w in TOKENS[token].asked or TOKENS[token].words]
        return [stem(word) for word in [w for w in words if w not in STOP_WORDS] or words]

    def _known(self, word: str) -> bool:
        return self.found_in[stem(word)] > 0

    def _share(self, word: str, chunk: ChunkWords) -> float:
        f, idf = float(np.float32(chunk.counts[word])), self._idf(word)
        return idf * f / (f + K1 * (1 - B + B * chunk.length / self.mean))

    def _idf(self, word: str) -> float:
        n = self.found_in[word]
        return math.log(1 + (self.total - n + 0.5) / (n + 0.5))

    def _fields(self, document: Document) -> list[tuple[str, float]]:
        found = [(document.title, self.weights.get("title", 1.0))]
        for name, weight in self.weights.items():
            value = document.attributes.get(name) if name not in ("title", "text") else None
            values = value if isinstance(value, list) else [value]
            found += [(one, weight) for one in values if one is not None]
        return found

    def _chunks(self, documents: Sequence[Document]) -> dict[ChunkName, ChunkWords]:
        found: dict[ChunkName, ChunkWords] = {}
        for number, document in enumerate(documents):
            for chunk, text in enumerate(document.chunks):
                counts: Counter[str] = Counter()
                length = 0.0
                fields = [*self._fields(document), (text, self.weights.get("text", 1.0))]
                for place, (one, weight) in enumerate(fields):
                    for word in words_of(one):
                        # Stop words are searched in titles alone, and count for no length.
                        if word not in STOP_WORDS:
                            length += weight
                        elif place:
                            continue
                        counts[stem(word)] += weight  # type: ignore[assignment]
                    for word in variants_of(one):
                        counts[stem(word)] += weight  # type: ignore[assignment]
                found[number, chunk] = ChunkWords(counts, length)
        return found

    def _forms(self, documents: Sequence[Document]) -> set[str]:
        """Returns the words of documents as they are written."""
        found = set()
        for document in documents:
            fields = self._fields(document)
            fields += [(text, 1.0) for text in document.chunks]
            for place, (text, _) in enumerate(fields):
                found |= {w for w in words_of(text) if not place or w not in STOP_WORDS}
                found |= set(variants_of(text))
        return {form for form in found if form.isalpha() and 3 <= len(form) <= 32}
