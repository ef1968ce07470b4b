"""Where the words of a text are, in code points of the text as it is stored.

The words are found in the folded text, as they are for the index, and their places are mapped back:
so a word is marked exactly if it is one by which the text is found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from nearline.normalization import nfkc
from retrieval.index.lexical.text_analysis import (
    POSSESSIVE,
    VERSION,
    find_words,
    find_words_1,
    fold,
    normalize,
)

# Characters that are one character when folded, and that do not join the one before them.
PLAIN = (
    "\0-\x7f\u00a0-\u00a7\u00ab\u00b0\u00b1\u00b6\u00b7\u00bb\u00bf-\u00c5\u00c7-\u00dd"
    "\u00e0-\u00e5\u00e7-\u00fd\u0100-\u012f\u0134-\u013e\u0141-\u0148\u014c-\u0151\u0154-\u017e"
    "\u0386\u0388-\u03ce\u0400-\u0482\u048a-\u052f\u2010-\u2016\u2018-\u201f"
    "\u3001-\u3020\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\uff01-\uff5e\U0001f300-\U0001faff"
)
_PLAIN_TEXT = re.compile(f"[{PLAIN}]*")
# The first of them may join the plain character before it.
_OTHERS = re.compile(f"[{PLAIN}]?[^{PLAIN}]+")
# Parts of Hangul syllables, and sound marks of narrow kana, are letters that join the one before.
_JOINING = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff\uff9e-\uffdc]")
# More marks are folded apart from their letter: putting them in order takes quadratic time.
_MAX_CLUSTER = 32
_CACHED_CLUSTERS = 16_384


class FoldedText(NamedTuple):
    """A folded text: its characters, and the places that each has in the stored text.

    starts, ends: For each character, the first and the past-the-end code point.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the place of a part of it that is not empty."""
        return self.starts[start], self.ends[end - 1]


def word_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Yields (first, past-the-end code point, folded word) of the words of a text."""
    folded = folded_text(text)
    for start, end, word in find_words(folded.text, variants=False):
        yield *folded.span(start, end), word


def index_word_spans(
    text: str,
    version: int = VERSION,
    select: Callable[[set[str]], Container[str]] = lambda words: words,
) -> list[tuple[int, int, str]]:
    """Returns (first, past-the-end code point, word) of the words by which a text is found.

    They are not stemmed. Those of compounds and pairs overlap others. The time grows with the
    length: about 25 ms for 100,000 characters.

    Args:
        text: Any text.
        version: The version of its analysis.
        select: Returns which of the distinct words are wanted. Optional.
    """
    folded = folded_text(text, version)
    found = list(find_words_1(folded.text) if version == 1 else find_words(folded.text))
    wanted = select({word for _, _, word in found})
    return [(*folded.span(start, end), word) for start, end, word in found if word in wanted]


def folded_text(text: str, version: int = VERSION) -> FoldedText:
    """Returns what a text is split into words from."""
    clean = _clean_1 if version == 1 else _clean
    if _PLAIN_TEXT.fullmatch(text):
        folded, starts, ends = clean(text), range(len(text)), range(1, len(text) + 1)
        found = FoldedText(folded, starts, ends)
    else:
        found = _folded_pieces(text, clean)
    return found if version == 1 else _without_possessives(found)


def _folded_pieces(text: str, clean: Callable[[str], str]) -> FoldedText:
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for others in _OTHERS.finditer(text):
        _add_plain(text, at, others.start(), clean, pieces, starts, ends)
        for start, end in _clusters(text, *others.span()):
            folded = _folded_cluster(text[start:end], clean)
            pieces.append(folded)
            starts += [start] * len(folded)
            ends += [end] * len(folded)
        at = others.end()
    _add_plain(text, at, len(text), clean, pieces, starts, ends)
    return FoldedText("".join(pieces), starts, ends)


def _add_plain(
    text: str,
    start: int,
    end: int,
    clean: Callable[[str], str],
    pieces: list[str],
    starts: list[int],
    ends: list[int],
) -> None:
    if start < end:
        pieces.append(clean(text[start:end]))
        starts += range(start, end)
        ends += range(start + 1, end + 1)


def _clusters(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the bounds of each character with the marks that follow it."""
    first = start
    for at in range(start + 1, end):
        character = text[at]
        joins = unicodedata.category(character)[0] == "M" or _JOINING.match(character)
        if not joins or at - first >= _MAX_CLUSTER:
            yield first, at
            first = at
    yield first, end


@lru_cache(_CACHED_CLUSTERS)
def _folded_cluster(cluster: str, clean: Callable[[str], str]) -> str:
    return clean(cluster)


def _clean(text: str) -> str:
    return fold(normalize(text))


def _clean_1(text: str) -> str:
    return nfkc(text).lower()


def _without_possessives(folded: FoldedText) -> FoldedText:
    if "'" not in folded.text or not POSSESSIVE.search(folded.text):
        return folded
    kept = []
    at = 0
    for match in POSSESSIVE.finditer(folded.text):
        kept.append(slice(at, match.start()))
        at = match.end()
    kept.append(slice(at, None))
    return FoldedText(
        "".join(folded.text[part] for part in kept),
        [one for part in kept for one in folded.starts[part]],
        [one for part in kept for one in folded.ends[part]],
    )
