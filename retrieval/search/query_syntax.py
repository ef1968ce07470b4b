"""The syntax of query texts: `"new york" hotel -cheap` and `hotel new yo*`.

A quoted phrase must be in the title or the text of a hit, as it is written but for case, accents
and punctuation. A hit has no word, or no phrase, after a minus that follows a space. A last word
that ends with a star may go on. Everything else is text: quotes that do not close, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nearline.errors import InvalidRequest
from nearline.filters import MAX_TEXT_CHARACTERS, All, Filter, Not, Phrase, Words, both

# Of one query, phrases and what is excluded.
MAX_CONDITIONS = 16
# A phrase, perhaps excluded; or an excluded word, which begins with a letter or digit.
_CONDITION = re.compile(
    r"(?:(?<=\s)|(?<![\s\S]))(?P<minus>-?)"
    r'(?:"(?P<straight>[^"]*)"|\u201c(?P<curly>[^\u201c\u201d]*)\u201d)'
    r'|(?:(?<=\s)|(?<![\s\S]))-(?P<word>[^\W_][^\s"]*)'
)
_PREFIX = re.compile(r"[^\W_]\*\s*\Z")
_HAS_WORD = re.compile(r"[^\W_]")


class ParsedText(NamedTuple):
    """A query text without its syntax.

    plain: What is left, for the embedder. words: The same for the lexical leg, which ends with a
    star if the last word may go on. condition: What hits must and must not have; None for nothing.
    """

    plain: str
    words: str
    condition: Filter | None


def parse_text(text: str, field: str) -> ParsedText:
    """Reads the syntax of a query text.

    Args:
        text: The text.
        field: Field of the request, for errors.
    Raises: InvalidRequest: nothing is left to search for, or there are more than 16 phrases and
        exclusions.
    """
    conditions: list[Filter] = []
    kept: list[str] = []
    end = 0
    for match in _CONDITION.finditer(text):
        phrase = match["word"] or match["straight"] or match["curly"] or ""
        if not _HAS_WORD.search(phrase):
            continue
        _check_length(phrase, field)
        excluded = match["word"] is not None or bool(match["minus"])
        kept.append(text[end : match.start()])
        end = match.end()
        if not excluded:
            conditions.append(Phrase(phrase))
            kept.append(phrase)
        elif match["word"] is not None and phrase.isalnum():
            conditions.append(Not(Words(phrase)))
        else:
            conditions.append(Not(Phrase(phrase)))
    if len(conditions) > MAX_CONDITIONS:
        raise InvalidRequest(
            f"{field}.text has {len(conditions)} phrases and excluded words, {MAX_CONDITIONS} are "
            "allowed; leave some out, or set options.plain_text to search for the text as it is",
            field=f"{field}.text",
        )
    left = "".join((*kept, text[end:]))
    if conditions and not _HAS_WORD.search(left):
        raise InvalidRequest(
            f"{field}.text only says what hits must not have; add words to search for, use a "
            "filter, or set options.plain_text",
            field=f"{field}.text",
        )
    words = left
    if _PREFIX.search(left):
        words = left.rstrip()
        left = words[:-1]
    condition = conditions[0] if len(conditions) == 1 else All(*conditions) if conditions else None
    return ParsedText(left, words, condition)


def as_plain(text: str) -> ParsedText:
    """Returns a text that has no syntax."""
    # A star at the end would let the last word go on.
    return ParsedText(text, f"{text} " if text.endswith("*") else text, None)


def with_share(parsed: ParsedText, share: float, field: str) -> ParsedText:
    """Returns a text whose hits must have a share of its words; see `nearline.filters.Words`.

    Raises: InvalidRequest: the text is too long.
    """
    if len(parsed.words) > MAX_TEXT_CHARACTERS:
        raise InvalidRequest(
            f"{field}.text has {len(parsed.words):,} characters; with min_should_match, "
            f"{MAX_TEXT_CHARACTERS:,} are allowed; shorten it, or leave min_should_match unset",
            field="options.min_should_match",
        )
    words = Words(parsed.words, share, similar=True)
    return parsed._replace(condition=both(parsed.condition, words))


def _check_length(phrase: str, field: str) -> None:
    if len(phrase) > MAX_TEXT_CHARACTERS:
        raise InvalidRequest(
            f"{field}.text has a phrase of {len(phrase):,} characters; {MAX_TEXT_CHARACTERS:,} are "
            "allowed; shorten it, or set options.plain_text to search for the text as it is",
            field=f"{field}.text",
        )
