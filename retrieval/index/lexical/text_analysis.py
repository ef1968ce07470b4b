"""Splitting and stemming of texts into words, for documents and queries alike."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import Stemmer

from nearline.errors import InvalidRequest
from nearline.normalization import nfkc

# Incremented whenever the same text would yield different words; snapshots record the version.
VERSION = 2
# Version 1 kept accents, underscores and the s of a possessive.
VERSIONS = (1, 2)
NO_LANGUAGE = "none"
STEMMER_VERSION: str = Stemmer.version()
LANGUAGES: tuple[str, ...] = (NO_LANGUAGE, *Stemmer.algorithms())
# Han and kana are written without spaces, so each character is a word: a run of characters would
# match only an identical run.
CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Vowel signs of Indic scripts, Thai, Khmer and others belong to words, but are no letters.
_SIGNS = "".join(
    chr(code) for code in range(0x0900, 0x1A00) if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
_LETTERS = rf"[^\W_{CJK}]+(?:[{_SIGNS}]+[^\W_{CJK}]*)*"
_WORD = re.compile(rf"[{CJK}]|{_LETTERS}")
_ASCII_WORD = re.compile("[a-z0-9]+")
_WORD_1 = re.compile(rf"[{CJK}]|[^\W{CJK}]+")
POSSESSIVE = re.compile(r"'s\b")
# "XR-200", "AT&T", "U.S.A", "snake_case": also found as one word, without what joins them. Words
# without a joint match, too: if one were needed, long words would take quadratic time.
_JOINTS = "[-\u2010\u2011\u200c\u00b7.'&_]"
_JOINT = re.compile(rf"(?<=.){_JOINTS}(?=.)")
_COMPOUND = re.compile(rf"{_LETTERS}(?:{_JOINTS}{_LETTERS})*")
_MAX_COMPOUND = 32
# Soft hyphens and other invisible joints of one word; and the dot within foreign names in Japanese,
# which is often omitted.
_DROPPED = re.compile("[\u00ad\u200d\u2060\ufeff\u30fb]")
_CJK_CHARACTER = re.compile(rf"[{CJK}]")
_CJK_RUN = re.compile(rf"[{CJK}]{{2,}}")
_CJK_RUN_OR_WORD = re.compile(rf"[{CJK}]+|{_LETTERS}")


class Analyser:
    """Turns texts into words; may be called from several threads.

    Args:
        language: Language of the stemmer, one of LANGUAGES; "none" disables stemming.
        stop_words: Words to drop, as `split` returns them.
        version: One of VERSIONS; older ones are those of older snapshots.
    Raises: InvalidRequest: an unknown language.
    """

    def __init__(
        self, language: str, stop_words: Collection[str] = (), version: int = VERSION
    ) -> None:
        self.language = check_language(language)
        self.stop_words = frozenset(stop_words)
        self.version = version
        # Stemmers have state, so each thread has its own.
        self._stemmers = threading.local()

    def split(self, text: str) -> list[str]:
        """Returns the words of a text in order, stop words included, not stemmed."""
        if self.version == 1:
            return _WORD_1.findall(nfkc(text).lower())
        return split_words(text)

    def words(self, text: str) -> list[str]:
        """Returns the stems of the words of a text in order, without stop words.

        Example: "Cats, and a cat's mats" -> ["cat", "cat", "mat"] in English.
        """
        return self.stems([word for word in self.split(text) if word not in self.stop_words])

    def stems(self, words: Sequence[str]) -> list[str]:
        """Returns the stem of each word."""
        if self.language == NO_LANGUAGE:
            return list(words)
        try:
            stemmer = self._stemmers.own
        except AttributeError:
            stemmer = self._stemmers.own = Stemmer.Stemmer(self.language)
        stems: list[str] = stemmer.stemWords(words)
        return stems

    def variants(self, text: str) -> list[str]:
        """Returns further words by which a text is found, not stemmed; see `iter_variants`."""
        return [] if self.version == 1 else list(iter_variants(text))


def normalize(text: str) -> str:
    """Returns a text in lower case, normalized by NFKC, without invisible characters in words."""
    if text.isascii():
        return text.lower()
    return _DROPPED.sub("", nfkc(text)).lower()


def fold(text: str) -> str:
    """Returns a normalized text without the accents of Latin and Greek letters.

    Example: "Björk, Ærø" -> "bjork, aero".
    """
    return text if text.isascii() else text.translate(_FOLDED)


def folded(text: str) -> str:
    """Returns a text in lower case, without accents and without the s of possessives."""
    text = fold(normalize(text))
    return POSSESSIVE.sub("", text) if "'" in text else text


def split_words(text: str) -> list[str]:
    """Splits a text into folded words in lower case, without the s of a possessive.

    Single letters and digits are words: with them SciFact train has nDCG@10 0.689, without them
    0.688 (k1 1.2, b 0.75), and they distinguish "vitamin D" from "vitamin C".
    """
    return split_folded(folded(text))


def split_folded(text: str) -> list[str]:
    """Splits a text as `split_words` does; the text is `folded`."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def find_words(folded: str, *, variants: bool = True) -> Iterator[tuple[int, int, str]]:
    """Yields (first, past-the-end place, word) of the words of a folded text.

    Args:
        folded: A normalized and folded text without possessives.
        variants: Whether to find compounds and pairs, too, as `iter_variants` does; they follow the
            words.
    """
    for match in (_ASCII_WORD if folded.isascii() else _WORD).finditer(folded):
        yield match.start(), match.end(), match.group()
    if not variants:
        return
    at = 0
    for piece in folded.split():
        if piece.isalnum() or not _JOINT.search(piece):
            continue
        # Only pieces with a joint contain it, and those before it lie before.
        first = folded.index(piece, at)
        at = first + len(piece)
        for compound in _COMPOUND.finditer(folded, first, at):
            start, end = compound.span()
            if end - start <= _MAX_COMPOUND:
                parts = _WORD.findall(compound.group())
                if len(parts) > 1:
                    yield start, end, "".join(parts)
    if not folded.isascii():
        for run in _CJK_RUN.finditer(folded):
            for at in range(run.start(), run.end() - 1):
                yield at, at + 2, folded[at : at + 2]


def find_words_1(folded: str) -> Iterator[tuple[int, int, str]]:
    """Yields what `find_words` does, for version 1 of the analysis."""
    for match in _WORD_1.finditer(folded):
        yield match.start(), match.end(), match.group()


def split_query(text: str) -> list[str]:
    """Splits the text of a query as `split_words` does, but longer runs of Han and kana into pairs.

    Example: "東京都 go" -> ["東京", "京都", "go"].
    """
    if text.isascii():
        return split_words(text)
    found: list[str] = []
    for word in _CJK_RUN_OR_WORD.findall(folded(text)):
        if len(word) > 1 and _CJK_CHARACTER.match(word):
            found += map("".join, pairwise(word))
        else:
            found.append(word)
    return found


def iter_variants(text: str) -> Iterator[str]:
    """Yields further words by which a text is found.

    They are compounds as one word ("XR-200" -> "xr200"), words with the accents as written
    ("björk"), and pairs of Han and kana characters.
    """
    for _, joined in iter_compounds(text):
        yield joined
    if not text.isascii():
        yield from iter_accented(text)
        for run in _CJK_RUN.findall(folded(text)):
            yield from map("".join, pairwise(run))


def iter_accented(text: str) -> Iterator[str]:
    """Yields the words with accents, as written."""
    if not text.isascii():
        for word in _WORD.findall(normalize(text)):
            if fold(word) != word:
                yield word


def iter_compounds(text: str) -> Iterator[tuple[list[str], str]]:
    """Yields the words of each compound, and the compound as one word."""
    # Most words are no compounds, and splitting at spaces is fast.
    pieces = " ".join(piece for piece in folded(text).split() if not piece.isalnum())
    for compound in _COMPOUND.findall(pieces):
        if len(compound) <= _MAX_COMPOUND:
            parts = _WORD.findall(compound)
            if len(parts) > 1:
                yield parts, "".join(parts)


def check_language(language: str) -> str:
    """Returns the language; raises InvalidRequest with the known languages if it is unknown."""
    if language not in LANGUAGES:
        raise InvalidRequest(
            f"there is no stemmer for language {language!r}; use one of {', '.join(LANGUAGES)}",
            field="language",
        )
    return language


class _Folded(dict[int, str]):
    """Maps code points to what replaces them; computed when first needed."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        folded = _SPECIAL.get(character, character)
        if folded == character and not character.isascii():
            base = unicodedata.normalize("NFD", character)
            name = unicodedata.name(character, "")
            if len(base) > 1 and unicodedata.name(base[0], "").startswith(("LATIN", "GREEK")):
                letters = "".join(one for one in base if not unicodedata.combining(one))
                folded = _SPECIAL.get(letters, letters)
            elif name.startswith("COMBINING ") or character == _TATWEEL:
                folded = ""
            elif name.startswith(_POINTED) and unicodedata.category(character) == "Mn":
                folded = ""
        self[code] = folded
        return folded


# Letters that have no decomposition into a base and an accent.
_SPECIAL = dict(
    pair.split(":")
    for pair in "ß:ss æ:ae œ:oe ø:o đ:d ð:d þ:th ł:l ı:i ħ:h ŋ:ng ŧ:t ё:е ’:' ς:σ".split()
)
# Scripts whose points are optional: those of vowels, of cantillation, of recitation.
_POINTED = ("ARABIC ", "HEBREW ")
_TATWEEL = "\u0640"  # Stretches a word.
_FOLDED = _Folded()
