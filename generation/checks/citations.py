"""Hashes of cited spans, used to find each span again later."""

from __future__ import annotations

import hashlib
import re

from generation.checks.hidden_text import strip_hidden_text
from generation.checks.markers import escape_markers
from nearline.contract import Citation, CitationCheck, Verdict

_WORD_START = re.compile(r"(?<!\S)\S")
# Maximum code points hashed per citation. The caller chooses the length of a span, up to a whole
# document, so the work needs a bound.
_MOST_HASHED = 1 << 25


def text_hash(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8, lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def span_matches(citation: Citation, start: int, text: str) -> bool:
    """Returns whether the span of a citation has the cited text.

    Args:
        citation: The citation; its offsets refer to the stored text.
        start: Offset in the stored text at which `text` begins.
        text: The part of the stored text that was read.
    """
    first, last = citation.start - start, citation.end - start
    if not 0 <= first < last <= len(text):
        return False
    return text_hash(text[first:last]) == citation.text_hash


def check_citation(citation: Citation, text: str | None) -> CitationCheck:
    """Returns the verdict on a citation.

    Args:
        citation: Its span and hash.
        text: Current text of the document; None if it is no longer served.
    Returns: The verdict. If the text occurs several times, the place nearest to the old one counts.
        Only starts of words are tried, so a text that has since been joined to other characters
        counts as changed. This takes one hash per word of the document; in a very long document
        only the words nearest to the old place are tried.
    """
    if text is None:
        return CitationCheck(Verdict.GONE)
    if span_matches(citation, 0, text):
        return CitationCheck(Verdict.VALID, citation.start, citation.end)
    length = citation.end - citation.start
    if 0 < length <= len(text):
        starts = [match.start() for match in _WORD_START.finditer(text, 0, len(text) - length + 1)]
        nearest = sorted(starts, key=lambda start: abs(start - citation.start))
        for start in nearest[: _MOST_HASHED // length + 1]:
            if text_hash(text[start : start + length]) == citation.text_hash:
                return CitationCheck(Verdict.MOVED, start, start + length)
    return CitationCheck(Verdict.CHANGED)


def clean_text(text: str) -> str:
    """Returns stored text for use in an answer: one line, no hidden characters, no false markers.

    A stored "[12]" would read as a marker of the answer, so it becomes "(12)".
    """
    return escape_markers(" ".join(strip_hidden_text(text).split()))
