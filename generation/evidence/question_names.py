"""Names, numbers and identifiers of a question, which a text that answers it has.

"What is the default of upload_limit?" is answered by the entry of `upload_limit` or not at all.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:[.,'\u2019-]\w+)*")
# What is written as in code: an option, or a word with a sign or a capital inside.
_IDENTIFIER = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]{0,60}|\b[a-z]{1,40}[A-Z]\w{0,60}")
# Not an abbreviation, such as "e.g" or "a.m".
_CODE_WORD = re.compile(r"(?!(?:[^\W\d_]\.)+[^\W\d_]\Z)[\w.:]+")
_JOINS = "_.:"
_SPEAKER = frozenset({"i", "i'm", "i'd", "i've", "i'll"})


def asked_names(question: str) -> frozenset[str]:
    """Returns the names and numbers of a question, in lower case.

    A name is a word with a capital letter that does not begin the question, or a word with a digit;
    "I" is none, and the capitals of a question that has no other letters tell nothing.
    """
    words = _WORD.findall(question.lower() if question.isupper() else question)
    named = (
        _without_possessive(word)
        for at, word in enumerate(words)
        if any(sign.isdigit() for sign in word) or (at and word[0].isupper())
    )
    return frozenset(named) - _SPEAKER


def lacks_names(names: frozenset[str], text: str) -> float:
    """Returns the share of names and numbers, 0..1, that a text lacks; 0.0 if there are none.

    Args:
        names: See `asked_names`.
        text: A text in any case.
    """
    if not names:
        return 0.0
    held = {_without_possessive(word) for word in _WORD.findall(text)}
    return len(names - held) / len(names)


def asked_identifiers(question: str) -> frozenset[str]:
    """Returns the options and names of code in a question, in lower case: `--force`, `work_mem`."""
    words = (word.strip("?!,;()'\"`.:") for word in question.split())
    found = [
        word
        for word in words
        if _CODE_WORD.fullmatch(word) and any(sign in word for sign in _JOINS)
    ]
    return frozenset(one.casefold() for one in (*found, *_IDENTIFIER.findall(question)))


def lacks_identifiers(identifiers: frozenset[str], text: str) -> float:
    """Returns the share of identifiers, 0..1, that do not occur in a text; 0.0 if there are none.

    Args:
        identifiers: See `asked_identifiers`.
        text: A text in any case.
    """
    told = text.casefold()
    return sum(one not in told for one in identifiers) / (len(identifiers) or 1)


def _without_possessive(word: str) -> str:
    return word.casefold().replace("\u2019", "'").removesuffix("'s")
