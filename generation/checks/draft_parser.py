"""Parses the text that a model streams into sentences with source markers.

A sentence is complete when the next one begins, because only then have all markers after it
arrived. Each sentence is therefore returned one word late, and the result does not depend on how
the text was split into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from generation.checks.markers import MARKER_PATTERN, parse_marker
from nearline.sentences import sentences, token_starts

_MOST_TOKENS = 400
# A text of this length without the end of a sentence is parsed again only after it has grown by
# this factor.
_LONG = 600
_LONG_GROWTH = 1.25
_Range = tuple[int, int]

_FENCE = re.compile(r"(?<=\n)[ \t]*(?:```|~~~)")
_FENCE_END = re.compile(r"(?<=\n)[ \t]*(?:```|~~~)[ \t]*(?=\n|\Z)")
# A line that begins with one of these starts a new block; headings and rows end with the line.
_BLOCK = re.compile(r"(?<=\n)[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|#{1,6}[ \t]|\|)")
_LINE = re.compile(r"#{1,6}[ \t]|\|")
_ITEM_NUMBER = re.compile(r"\d{1,3}[.)](?=[ \t])")

_URL = r"(?:https?:|www\.|//)[^\s\[\]【】]{0,2000}"
_BRACKET = r"(?:\[{1,2}[^\[\]\n]{0,700}\]{1,2}(?:\([^()\n]{0,400}\))?|【[^】\n]{0,700}】)"
_HALF = r"(?:\[{1,2}(?:[^\[\]\n]{1,700}(?:\]{1,2}(?:\([^()\n]{0,400}\)?)?)?)?|【[^】\n]{0,700}】?)"
_HALF_MARKER = re.compile(r"(?:(?<!\w)|(?<![ \t])[ \t]+)[\[【][\s\d,;^–—-]*\Z")
# Constructs that reach the end of the received text, and may change when more text arrives.
_OPEN = rf"""(?P<open>
    `[^`\n]{{0,200}}\Z
    | (?=[(!\[【])(?:\([ \t]*|!)?
        (?:{_BRACKET}[ \t]*(?:(?:[,;–—-]|an?d?|&)[ \t]*)?){{0,41}}(?:{_HALF}[ \t]*)?\)?\Z
    | (?<=\n)[ \t]*(?:``?|~~?|[-*+•]|\d{{1,3}}[.)]?|\#{{1,6}})\Z
    | \w(?:\[\d+\])+\Z
    | (?:{_URL}|h(?:t(?:t(?:ps?)?)?)?|ww?w?|/)\Z
)"""
# Opaque text contains no markers, and a full stop in it does not end a sentence.
_CLOSED = rf"""{MARKER_PATTERN}
    | (?P<opaque>`[^`\n]{{1,200}}` | !?\[[^\[\]\n]{{0,200}}\]\([^()\n]{{0,400}}\) | {_URL}[\w/])"""
_ENDED = re.compile(_CLOSED, re.IGNORECASE | re.VERBOSE)
_GOING_ON = re.compile(rf"{_OPEN} | {_CLOSED}", re.IGNORECASE | re.VERBOSE)


class DraftSentence(NamedTuple):
    """A sentence of an answer, or a heading, an item of a list, or a block of code.

    lead: The white space before the sentence, unchanged.
    text: The sentence without markers; not empty.
    markers: Distinct numbers of the named sources, in order, all within range.
    dropped_markers: Number of markers that name no source.
    code: Whether it is a block of code, or a part of one.
    """

    lead: str
    text: str
    markers: tuple[int, ...]
    dropped_markers: int
    code: bool = False


class DraftParser:
    """Receives an answer in pieces, and returns its sentences.

    Markers after a full stop on the same line belong to the sentence before it, as do markers on a
    line of their own. Brackets in backticks or directly after a word are code, not markers.

    Args:
        sources: Number of sources; markers 1..sources are in range.
        most_tokens: Maximum tokens of a sentence; a longer one is cut at a space.
    """

    def __init__(self, sources: int, most_tokens: int = _MOST_TOKENS) -> None:
        self._sources = sources
        self._most_tokens = most_tokens
        # The patterns expect every line, including the first, to follow a "\n".
        self._text = "\n"
        self._begun = self._in_code = False
        self._next_look = 0

    def feed(self, piece: str) -> list[DraftSentence]:
        """Returns the sentences that a piece completes."""
        self._text += piece
        if len(self._text) < self._next_look:
            return []
        drafts = self._complete(whole=False)
        # Parsing an unfinished sentence again at every piece would take quadratic time.
        long = len(self._text) > _LONG
        self._next_look = int(len(self._text) * _LONG_GROWTH) if long else 0
        return drafts

    def end(self) -> list[DraftSentence]:
        """Returns the remaining sentences after the last piece; an unfinished marker is dropped."""
        in_code = (len(_FENCE.findall(self._text)) + self._in_code) % 2
        half = None if in_code else _HALF_MARKER.search(self._text)
        if half:
            self._text = self._text[: half.start()]
        drafts = self._complete(whole=True)
        if half and drafts:
            last = drafts[-1]
            drafts[-1] = last._replace(dropped_markers=last.dropped_markers + 1)
        return drafts

    def _complete(self, *, whole: bool) -> list[DraftSentence]:
        drafts = []
        while (draft := self._next(whole)) is not None:
            drafts.append(draft)
        return drafts

    def _next(self, whole: bool) -> DraftSentence | None:
        """Removes and returns the first sentence of the text; None if it is not complete."""
        text = self._text
        if self._in_code:
            return self._next_code(None, whole)
        prose = _Prose(text, 0, whole)
        start = prose.first(0)
        if start is None:
            fenced = prose.ended and prose.known < len(text)
            return self._next_code(prose, whole) if fenced else None
        end = prose.sentence_end(start)
        limit = self._limit(prose.plain, start)
        if limit is not None and (end is None or end > limit):
            end = prose.cut(start, limit)
        after = None if end is None else prose.markers_after(end)
        if end is None or after is None:
            return None
        marked = [span for span in prose.markers if span[1] <= end] + after
        return self._take(start, end, marked)

    def _next_code(self, before: _Prose | None, whole: bool) -> DraftSentence | None:
        """Does the same as `_next` for a block of code; `before` is the text before a new block."""
        text = self._text
        start = len(text) - len(text[before.known if before else 0 :].lstrip())
        if start == len(text):
            return None
        first_line = text.find("\n", start) if before is not None else text.rfind("\n", 0, start)
        close = _FENCE_END.search(text, first_line + 1) if first_line >= 0 else None
        end = close.end() if close and (whole or close.end() < len(text)) else None
        if end is None and whole:
            end = len(text.rstrip())
        limit = self._limit(text, start)
        if limit is not None and (end is None or end > limit):
            end = max(text.rfind("\n", start, limit), text.rfind(" ", start, limit))
            end = start + len(text[start : end if end > start else limit].rstrip())
            return self._take(start, end, before.markers if before else [], goes_on=True, code=True)
        after = None if end is None else _Prose(text, end, whole).markers_after(end)
        if end is None or after is None:
            return None
        marked = (list(before.markers) if before else []) + after
        return self._take(start, end, marked, code=True)

    def _limit(self, text: str, start: int) -> int | None:
        """Returns the start of the first token beyond the limit; None if the text is within it."""
        starts = token_starts(text, start, len(text))
        return next(islice(starts, self._most_tokens, None), None)

    def _take(
        self,
        start: int,
        end: int,
        marked: Sequence[_Range],
        *,
        code: bool = False,
        goes_on: bool = False,
    ) -> DraftSentence:
        text = self._text
        found = [parse_marker(text[first:last], self._sources) for first, last in marked]
        draft = DraftSentence(
            _without(text, 0, start, marked) if self._begun else "",
            _without(text, start, end, marked).strip(),
            tuple(dict.fromkeys(number for each in found for number in each.numbers)),
            sum(each.dropped for each in found),
            code,
        )
        self._text = text[max([end, *(last for _, last in marked)]) :]
        self._begun, self._in_code = True, goes_on
        return draft


class _Prose:
    """The received part of a text up to the next block of code, or up to its end.

    plain: The text, with markers replaced by spaces and opaque text by letters.
    ended: Whether it is complete.
    """

    def __init__(self, text: str, start: int, whole: bool) -> None:
        fence = _FENCE.search(text, start)
        stop = fence.start() if fence else len(text)
        self.ended = whole or fence is not None
        self.markers: list[_Range] = []
        self._text = text
        # Opaque text and indexes; half of one would be read as something else.
        self._unbroken: list[_Range] = []
        parts, at = [], 0
        for match in (_ENDED if self.ended else _GOING_ON).finditer(text, start, stop):
            if not self.ended and match["open"] is not None:
                stop = match.start()
                break
            (self.markers if match["marker"] else self._unbroken).append(match.span())
            if match["index"]:
                continue
            sign = " " if match["marker"] else "x"
            parts += [text[at : match.start()], sign * (match.end() - match.start())]
            at = match.end()
        self.plain = "".join([*parts, text[at:stop]])

    @property
    def known(self) -> int:
        """Length of the part whose meaning cannot change."""
        return len(self.plain)

    def first(self, start: int) -> int | None:
        """Returns the index of the first character that is neither white space nor part of a
        marker."""
        at = self.known - len(self.plain[start:].lstrip())
        return at if at < self.known else None

    def sentence_end(self, start: int) -> int | None:
        """Returns the end of the sentence that begins at `start`; None if it is not known yet."""
        if _LINE.match(self.plain, start):
            end = self.plain.find("\n", start)
            if end < 0 and not self.ended:
                return None
            return start + len(self.plain[start : end if end >= 0 else self.known].rstrip())
        block = _BLOCK.search(self.plain, start + 1)
        part = self.plain[start : block.start() if block else self.known]
        if item := _ITEM_NUMBER.match(part):
            part = "x" * item.end() + part[item.end() :]
        found = sentences(part)
        if len(found) == 1 and not block and not self.ended:
            return None
        return start + found[0][1]

    def cut(self, start: int, limit: int) -> int:
        """Returns the place at which to cut a text before `limit`: at a space, if possible.

        After `limit` only if the text begins with code or a link that is longer.
        """
        at = limit
        for first, last in (*self.markers, *self._unbroken):
            if first < limit < last:
                at = first if first > start else last
        spaces = [match.start() for match in re.finditer(r"\s+", self.plain[start:at])]
        solid = [
            space
            for space in spaces
            if not any(first <= start + space < last for first, last in self.markers)
        ]
        return start + len(self.plain[start : start + solid[-1] if solid else at].rstrip())

    def markers_after(self, end: int) -> list[_Range] | None:
        """Returns the markers after a sentence that belong to it; None if not known yet."""
        following = self.first(end)
        if following is None and not self.ended:
            return None
        found = []
        for first, last in self.markers:
            if first < end:
                continue
            if following is not None:
                if first > following:
                    break
                own_line = "\n" in self._text[last:following]
                if "\n" in self._text[end:first] and not own_line:
                    break
            found.append((first, last))
        return found


def _without(text: str, start: int, end: int, marked: Sequence[_Range]) -> str:
    """Returns text[start:end] without markers, and without the space before each."""
    parts, at = [], start
    for first, last in marked:
        if not start <= first < end:
            continue
        before = text[at:first].rstrip(" \t")
        joined = before[-1:].isalnum() and text[last : last + 1].isalnum()
        parts.append(before + " " if joined else before)
        at = last
    return "".join([*parts, text[at:end]])
