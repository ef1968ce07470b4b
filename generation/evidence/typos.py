"""Misspelt words of a question, corrected to words of its evidence.

The search tolerates typos by itself; those who read a question and a unit together do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from rapidfuzz.distance import OSA
from rapidfuzz.process import extractOne

from generation.evidence.sentence_features import plain
from generation.evidence.sources import EvidenceSource
from generation.evidence.word_weights import is_common
from retrieval.index.lexical.text_analysis import Analyser

_WORD = re.compile(r"[^\W\d_]+")
# Letters of a word in which one edit is allowed, and two: a swap of neighbours is one.
_ONE_EDIT, _TWO_EDITS = 5, 9
# Words of a question that are looked at; a question with more that English lacks is not English.
_MOST_WORDS, _MOST_MISSPELT = 64, 8


def misspelt_words(
    question: str, sources: Iterable[EvidenceSource], analyser: Analyser
) -> dict[str, str]:
    """Returns the words of an English question that are misspelt, with those of the evidence.

    "fitnes" is misspelt if English has no such word, the evidence neither, and it has "fitness". A
    word with a capital may be a name, and is left alone, unless all are capitals.

    Args:
        question: The question.
        sources: Its evidence, best first.
        analyser: Of English.
    """
    asked = list(dict.fromkeys(_WORD.findall(question)[:_MOST_WORDS]))
    names = set() if question.isupper() else {word for word in asked[1:] if word[0].isupper()}
    long = [word for word in asked if len(word) >= _ONE_EDIT and word not in names]
    stems = analyser.stems([word.lower() for word in long])
    doubtful = {stem: word for stem, word in zip(stems, long, strict=True) if not is_common(stem)}
    if not 0 < len(doubtful) <= _MOST_MISSPELT:
        return {}
    words = list(dict.fromkeys(word for source in sources for word in _words_of(source)))
    # In the order of the evidence, so that of equally near words the first is taken.
    there: dict[str, str] = {}
    for stem, word in zip(analyser.stems(words), words, strict=True):
        there.setdefault(stem, word)
    found = {}
    for stem, word in doubtful.items():
        # The stem of "rabit" is one edit from that of "rabbits", but "fitnes" from "fitness".
        near = _nearest(word.lower(), words) or there.get(_nearest(stem, there))
        if near and stem not in there:
            found[word] = near
    return found


def _nearest(word: str, others: Collection[str]) -> str:
    """Returns the word that resembles one most; empty if none is near enough."""
    edits = 2 if len(word) >= _TWO_EDITS else 1
    near = [one for one in others if one[0] == word[0] and len(one) >= _ONE_EDIT - 1]
    best = extractOne(word, near, scorer=OSA.distance, score_cutoff=edits)
    return "" if best is None else str(best[0])


def corrected(question: str, misspelt: dict[str, str]) -> str:
    """Returns a question with its misspelt words replaced."""
    return _WORD.sub(lambda match: misspelt.get(match[0], match[0]), question)


def _words_of(source: EvidenceSource) -> Iterable[str]:
    texts = [source.best.title or "", *(passage.text for passage in source.passages)]
    texts += [entry for passage in source.passages for entry in passage.path]
    return _WORD.findall(plain(" ".join(dict.fromkeys(texts))))
