"""The best passage of a text for a query: the part of limited length with most of its words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from nearline.sentences import iterate_sentences
from retrieval.index.lexical.text_analysis import CJK
from retrieval.index.lexical.word_matcher import MatchedWord

Span: TypeAlias = tuple[int, int]

# Languages without spaces may be cut between any two characters.
_WORD_START = re.compile(rf"(?<!\S)\S|[{CJK}]")
_GAP = re.compile(rf"(?s:\s|.(?=\s)|[{CJK}]|.(?=[{CJK}]))")
# Characters before a passage in which the beginnings of its sentences are looked for.
_LOOK_BACK = 64
_JOINER = "\u200d"
# Marks that follow one character, at most, when a word is cut.
_MAX_MARKS = 16


def best_passage(text: str, words: Sequence[MatchedWord], most: int) -> Span:
    """Returns the bounds of the best passage, without white space around it.

    The best has the words of the query with the largest sum of weights, each counted once; then
    most words in all; then it is the first. It is completed to whole sentences where they fit, else
    to whole words. A word longer than the passage is not counted. Takes time for the words, and for
    the text around the passage.

    Args:
        text: Any text.
        words: The words of the query in the text, by (start, end).
        most: Most code points of the passage, >= 1.
    """
    if len(text) <= most:
        return _stripped(text, 0, len(text))
    core = _best_core(words, most)
    if core is None:
        start = len(text) - len(text.lstrip())
        core = start, start
    return _stripped(text, *_completed(text, core, most))


def _best_core(words: Sequence[MatchedWord], most: int) -> Span | None:
    """Returns the bounds of the best words that fit: of all passages, one begins with a word."""
    by_end = sorted(range(len(words)), key=lambda at: words[at].end)
    totals: dict[int, Counter[int]] = {}
    best = value = count = added = removed = 0
    is_in = bytearray(len(words))
    best_count, best_first = 0, -1
    for first, word in enumerate(words):
        if first and word.start == words[first - 1].start:
            continue
        while removed < first:
            if is_in[removed]:
                value += _change(totals, words[removed], -1)
                count -= 1
            removed += 1
        while added < len(words) and words[by_end[added]].end <= word.start + most:
            at = by_end[added]
            if at >= first:
                is_in[at] = 1
                value += _change(totals, words[at], 1)
                count += 1
            added += 1
        if count and (value, count) > (best, best_count):
            best, best_count, best_first = value, count, first
    if best_first < 0:
        return None
    start = words[best_first].start
    ends = (word.end for word in words[best_first:] if word.end <= start + most)
    return start, max(ends)


def _change(totals: dict[int, Counter[int]], word: MatchedWord, times: int) -> int:
    """Adds a word to the totals, or removes it; returns by how much their value changes.

    Args:
        totals: For each word of the query, how often each weight occurs; the largest counts.
    """
    change = 0
    for number, weight in word.weights:
        weights = totals.setdefault(number, Counter())
        change -= max(weights, default=0)
        weights[weight] += times
        if not weights[weight]:
            del weights[weight]
        change += max(weights, default=0)
    return change


def _completed(text: str, core: Span, most: int) -> Span:
    """Returns the core with as much of the text around it as fits."""
    first, last = max(0, core[1] - most), min(len(text), core[0] + most)
    starts, ends = _sentence_bounds(text, first, last)
    sentence = max((one for one in starts if one <= core[0]), default=None)
    # In a sentence that is too long, half of the room is for what precedes the core.
    room = most - (core[1] - core[0])
    start = _word_start(text, core[0] - room // 2, core[0]) if sentence is None else sentence
    limit = min(len(text), start + most)
    end = max((one for one in ends if core[1] <= one <= limit), default=None)
    if end is None or end - start < most // 2:
        end = _word_end(text, core[1] if end is None else end, limit)
    # There may be room for more before.
    if sentence is None:
        return _word_start(text, end - most, start), end
    return min(one for one in starts if end - most <= one <= start), end


def _sentence_bounds(text: str, first: int, last: int) -> tuple[list[int], list[int]]:
    """Returns where sentences begin and end between two places."""
    before, after = max(0, first - _LOOK_BACK), min(len(text), last + _LOOK_BACK)
    spans = [(before + a, before + b) for a, b in iterate_sentences(text[before:after])]
    # The first and the last may be cut.
    starts = [start for start, _ in (spans if before == 0 else spans[1:])]
    ends = [end for _, end in (spans if after == len(text) else spans[:-1])]
    return [one for one in starts if one >= first], [one for one in ends if one <= last]


def _word_start(text: str, least: int, most: int) -> int:
    """Returns the first start of a word in a range, else its end."""
    found = _WORD_START.search(text, max(0, least), most)
    return most if found is None else found.start()


def _word_end(text: str, least: int, most: int) -> int:
    """Returns the last end of a word in a range; a word too long for it is cut."""
    if most == len(text):
        return most
    for end in range(most, least, -1):
        if _GAP.match(text, end - 1):
            return end
    if least == most or (least and not text[least - 1].isspace()):
        return least
    for end in range(most, max(least, most - _MAX_MARKS), -1):
        joined = text[end - 1] == _JOINER or text[end] == _JOINER
        if not joined and unicodedata.category(text[end])[0] != "M":
            return end
    return most


def _stripped(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    kept = part.strip()
    start += len(part) - len(part.lstrip()) if kept else 0
    return start, start + len(kept)
