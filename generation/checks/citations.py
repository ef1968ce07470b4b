"""Citations: hashes of what was read, by which a span is found again later."""

from __future__ import annotations

import hashlib
import re

from generation.checks.hidden_text import strip_hidden_text
from generation.checks.markers import escape_markers
from nearline.contract import Citation, CitationCheck, Verdict

_WORD_START = re.compile(r"(?<!\S)\S")
# Code points hashed for one citation at most: who asks says how long it is, up to a whole document.
_MOST_HASHED = 1 << 25


def text_hash(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8, lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def span_matches(citation: Citation, start: int, text: str) -> bool:
    """Returns whether a citation's span of a text is what it says.

    Args:
        citation: With offsets in the stored text.
        start: Offset in the stored text at which `text` begins.
        text: What was read.
    """
    first, last = citation.start - start, citation.end - start
    if not 0 <= first < last <= len(text):
        return False
    return text_hash(text[first:last]) == citation.text_hash


def check_citation(citation: Citation, text: str | None) -> CitationCheck:
    """Returns what became of a citation.

    Args:
        citation: Its span and hash.
        text: Text of the document as it is served now; None: it is not served any more.
    Returns: Where the same text stands several times, the place nearest to where it stood.
        A place is looked for at the starts of words, so a text that was glued to other signs since
        counts as changed. Takes a hash per word of the document; in one so long that this is too
        much, only those words nearest to where it stood.
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
    """Returns stored text as a part of an answer: in one line, nothing invisible, no false markers.

    A stored "[12]" would read as a marker of the answer, so it becomes "(12)".
    """
    return escape_markers(" ".join(strip_hidden_text(text).split()))
