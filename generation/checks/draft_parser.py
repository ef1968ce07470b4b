"""Makes sentences with their markers out of the pieces of text that a model streams.

A sentence is complete when the next one has begun: only then have all markers behind it been seen.
So each comes a word late, and no cutting of a text into pieces changes what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from generation.checks.markers import MARKER_PATTERN, parse_marker
from nearline.sentences import sentences, token_starts

_MOST_TOKENS = 400
# Of a text this long without the end of a sentence, the next look is after so much more of it.
_LONG = 600
_LONG_GROWTH = 1.25
_Range = tuple[int, int]

_FENCE = re.compile(r"(?<=\n)[ \t]*(?:```|~~~)")
_FENCE_END = re.compile(r"(?<=\n)[ \t]*(?:```|~~~)[ \t]*(?=\n|\Z)")
# A line that begins with one of these is a thing of its own; headings and rows end with it.
_BLOCK = re.compile(r"(?<=\n)[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|#{1,6}[ \t]|\|)")
_LINE = re.compile(r"#{1,6}[ \t]|\|")
_ITEM_NUMBER = re.compile(r"\d{1,3}[.)](?=[ \t])")

_URL = r"(?:https?:|www\.|//)[^\s\[\]【】]{0,2000}"
_BRACKET = r"(?:\[{1,2}[^\[\]\n]{0,700}\]{1,2}(?:\([^()\n]{0,400}\))?|【[^】\n]{0,700}】)"
_HALF = r"(?:\[{1,2}(?:[^\[\]\n]{1,700}(?:\]{1,2}(?:\([^()\n]{0,400}\)?)?)?)?|【[^】\n]{0,700}】?)"
_HALF_MARKER = re.compile(r"(?:(?<!\w)|(?<![ \t])[ \t]+)[\[【][\s\d,;^–—-]*\Z")
# What reaches the end of what is known, and may read otherwise when more of it is.
_OPEN = rf"""(?P<open>
    `[^`\n]{{0,200}}\Z
    | (?=[(!\[【])(?:\([ \t]*|!)?
        (?:{_BRACKET}[ \t]*(?:(?:[,;–—-]|an?d?|&)[ \t]*)?){{0,41}}(?:{_HALF}[ \t]*)?\)?\Z
    | (?<=\n)[ \t]*(?:``?|~~?|[-*+•]|\d{{1,3}}[.)]?|\#{{1,6}})\Z
    | \w(?:\[\d+\])+\Z
    | (?:{_URL}|h(?:t(?:t(?:ps?)?)?)?|ww?w?|/)\Z
)"""
# No stop inside of what is opaque ends a sentence, and no marker stands there.
_CLOSED = rf"""{MARKER_PATTERN}
    | (?P<opaque>`[^`\n]{{1,200}}` | !?\[[^\[\]\n]{{0,200}}\]\([^()\n]{{0,400}}\) | {_URL}[\w/])"""
_ENDED = re.compile(_CLOSED, re.IGNORECASE | re.VERBOSE)
_GOING_ON = re.compile(rf"{_OPEN} | {_CLOSED}", re.IGNORECASE | re.VERBOSE)


class DraftSentence(NamedTuple):
    """A sentence of an answer; or a heading, an item of a list, a block of code.

    lead: White space that parts it from the text before, as it was written. text: Without markers,
    not empty. markers: What it names, in order, each once, all within range. dropped_markers: How
    many named no source. code: It is a block of code, or a part of one.
    """

    lead: str
    text: str
    markers: tuple[int, ...]
    dropped_markers: int
    code: bool = False


class DraftParser:
    """Takes an answer in pieces, and gives its sentences.

    Markers behind a stop, on the same line, belong to the sentence before; so do those on a line of
    their own. Brackets of code are no markers: in backticks, and directly after a word.

    Args:
        sources: Markers 1..sources are in range.
        most_tokens: What is longer is cut at a space before so many tokens.
    """

    def __init__(self, sources: int, most_tokens: int = _MOST_TOKENS) -> None:
        self._sources = sources
        self._most_tokens = most_tokens
        # A line begins after "\n", and the first one is no exception.
        self._text = "\n"
        self._begun = self._in_code = False
        self._next_look = 0

    def feed(self, piece: str) -> list[DraftSentence]:
        """Returns the sentences that a piece completes."""
        self._text += piece
        if len(self._text) < self._next_look:
            return []
        drafts = self._complete(whole=False)
        # What does not end is not read again at every piece: that takes the square of its length.
        long = len(self._text) > _LONG
        self._next_look = int(len(self._text) * _LONG_GROWTH) if long else 0
        return drafts

    def end(self) -> list[DraftSentence]:
        """Returns what is left when there are no more pieces; half a marker is dropped."""
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
        """Takes the first sentence off the text, once all of it is known."""
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
        behind = None if end is None else prose.behind(end)
        if end is None or behind is None:
            return None
        marked = [span for span in prose.markers if span[1] <= end] + behind
        return self._take(start, end, marked)

    def _next_code(self, before: _Prose | None, whole: bool) -> DraftSentence | None:
        """Does so where a block of code begins, or goes on; `before`: what stands before it."""
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
        behind = None if end is None else _Prose(text, end, whole).behind(end)
        if end is None or behind is None:
            return None
        marked = (list(before.markers) if before else []) + behind
        return self._take(start, end, marked, code=True)

    def _limit(self, text: str, start: int) -> int | None:
        """Returns where the first token begins that is too many; None: there is none."""
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
    """What is known of a text up to the next block of code, or up to its end.

    plain: The text, with spaces for markers and letters for what is opaque. ended: No more of it
    will come.
    """

    def __init__(self, text: str, start: int, whole: bool) -> None:
        fence = _FENCE.search(text, start)
        stop = fence.start() if fence else len(text)
        self.ended = whole or fence is not None
        self.markers: list[_Range] = []
        self._text = text
        self._opaque: list[_Range] = []
        parts, at = [], 0
        for match in (_ENDED if self.ended else _GOING_ON).finditer(text, start, stop):
            if not self.ended and match["open"] is not None:
                stop = match.start()
                break
            if match["index"]:
                continue
            (self.markers if match["marker"] else self._opaque).append(match.span())
            sign = " " if match["marker"] else "x"
            parts += [text[at : match.start()], sign * (match.end() - match.start())]
            at = match.end()
        self.plain = "".join([*parts, text[at:stop]])

    @property
    def known(self) -> int:
        """End of what is known."""
        return len(self.plain)

    def first(self, start: int) -> int | None:
        """Returns the first sign that is neither space nor marker."""
        at = self.known - len(self.plain[start:].lstrip())
        return at if at < self.known else None

    def sentence_end(self, start: int) -> int | None:
        """Returns the end of the sentence that begins at `start`; None: it is not known yet."""
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
        """Returns where a text is cut before `limit`, which is known: at a space, if there is
        one."""
        at = limit
        for first, last in (*self.markers, *self._opaque):
            if start < first < at < last:
                at = first
        spaces = [match.start() for match in re.finditer(r"\s+", self.plain[start:at])]
        solid = [
            space
            for space in spaces
            if not any(first <= start + space < last for first, last in self.markers)
        ]
        return start + len(self.plain[start : start + solid[-1] if solid else at].rstrip())

    def behind(self, end: int) -> list[_Range] | None:
        """Returns the markers behind a sentence that belong to it; None: they are not known yet."""
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
