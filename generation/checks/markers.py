"""Parses source markers in answers: "[1]", "[1, 2]", "[1]–[3]" and similar forms."""

from __future__ import annotations

import re
from typing import NamedTuple

# Scripts without spaces between words, in which a marker directly follows a word.
_UNSPACED = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# All repetitions are bounded, because a stream parser waits for the end of a marker. No two parts
# that may match white space are adjacent, because ambiguity causes exponential backtracking.
_GAP = r"[ \t]{0,3}"
_WORD = rf"(?:sources?|passages?|documents?|docs?|evidence|citations?|refs?\.?){_GAP}"
_NUMBER = rf"(?:\^{_GAP})?(?:{_WORD}(?:[\#^]{_GAP})?|\#{_GAP})?\d{{1,9}}"
_LIST = rf"{_GAP}{_NUMBER}(?:{_GAP}(?:[,;–—-]|and|to){_GAP}{_NUMBER}){{0,15}}{_GAP}"
_LINK = r"\([^()\s]{0,400}\)"
_ONE = rf"(?:\[{{1,2}}{_LIST}\]{{1,2}}(?:{_LINK})?|【{_LIST}(?:†[^】\n]{{0,200}})?】)"
_RUN = rf"{_ONE}(?:[ \t]*(?:(?:[,;–—-]|and|&)[ \t]*)?{_ONE}){{0,40}}"
# `index`: a bracket directly after a word, and those after it (`x[0][1]`).
MARKER_PATTERN = (
    rf"(?P<index>[^\W{_UNSPACED}](?:\[\d+\])+)|(?P<marker>\([ \t]*{_RUN}[ \t]*\)|{_RUN})"
)
_MARKER = re.compile(MARKER_PATTERN, re.IGNORECASE)
# The target of a link, or the text after a dagger; its digits are not source numbers.
_READ = re.compile(r"(?P<target>\]\([^()\s]*\)|†[^】]*)|\d+|[–—-]|\bto\b", re.IGNORECASE)

# The complete reply of a model if the passages do not answer the question.
NOT_ANSWERED = "NOT IN THE PASSAGES"


class MarkerTargets(NamedTuple):
    """The sources that a marker names.

    numbers: Distinct source numbers, in order, all within range.
    dropped: Number of entries that name no source.
    """

    numbers: tuple[int, ...]
    dropped: int


def parse_marker(marker: str, sources: int) -> MarkerTargets:
    """Parses a marker that `MARKER_PATTERN` matched.

    "[0]", "[9]" of 5, "[^1]", "[[1]]", "【1】", "[1](http://x)" and "[Source 1]" are markers;
    "[a]", "[1.5]", "[-1]" and a bracket directly after a word (`argv[1]`) are not. After a word of
    a language without spaces, such a bracket is a marker.

    Args:
        marker: The matched text.
        sources: Number of sources; 1..sources are in range.
    """
    numbers: dict[int, None] = {}
    dropped, before, is_range = 0, 0, False
    for token in _READ.finditer(marker):
        if token["target"]:
            continue
        if not token.group().isdecimal():
            is_range = before > 0
            continue
        number = int(token.group())
        first = min(before, number) if is_range else number
        last = max(before, number) if is_range else number
        numbers |= dict.fromkeys(range(max(1, first), min(last, sources) + 1))
        dropped += not 1 <= number <= sources
        before, is_range = number, False
    return MarkerTargets(tuple(numbers), dropped)


def escape_markers(text: str) -> str:
    """Returns a text without anything that reads as a marker: a stored "[12]" becomes "(12)"."""
    return _MARKER.sub(_in_parentheses, text)


def _in_parentheses(match: re.Match[str]) -> str:
    if match["index"]:
        return match.group()
    return re.sub(r"[\[【]+", "(", re.sub(r"[\]】]+", ")", match.group()))
