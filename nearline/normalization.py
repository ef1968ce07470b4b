"""Normalization of Unicode texts, in time that grows with their length."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Shorter texts are normalized in any case in a few milliseconds.
_SHORT = 1_024
# Of marks on one letter. No writing has so many; Unicode's stream-safe format allows 30.
MAX_MARKS = 32
# Beyond it, there are none.
_LAST_MARK = 0x1F000


def nfkc(text: str) -> str:
    """Returns a text normalized by NFKC.

    In a longer text, only the first 32 of the combining marks in a row are kept. Putting marks in
    order takes quadratic time: for 32,768 of them, which a query may have, a second.

    Source: Unicode Standard Annex 15, "Stream-Safe Text Format".
    """
    if len(text) > _SHORT and not text.isascii():
        # Among so many characters in a row, one is looked at.
        if any(map(unicodedata.combining, text[::MAX_MARKS])):
            text = _long_runs().sub(r"\1", text)
    return unicodedata.normalize("NFKC", text)


@lru_cache(1)
def _long_runs() -> re.Pattern[str]:
    """Returns what matches more marks than one letter may have; made in 20 ms when needed."""
    marks = "".join(filter(unicodedata.combining, map(chr, range(_LAST_MARK))))
    return re.compile(f"([{re.escape(marks)}]{{{MAX_MARKS}}})[{re.escape(marks)}]+")
