"""Words of a query in a hit, and the passage that shows them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DEFAULT_PASSAGE_CHARACTERS = 240
MAX_PASSAGE_CHARACTERS = 2_000

# First and past-the-end code point.
TextSpan = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Highlighting:
    """How hits are highlighted. passage_chars: Most code points of a passage, 1..2000."""

    passage_chars: int = DEFAULT_PASSAGE_CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A part of a text.

    start, end: Code points of the stored text. text: The part. spans: Words of the query, in code
    points of `text`, in order and apart.
    """

    start: int
    end: int
    text: str
    spans: Sequence[TextSpan] = ()

    def marked(
        self,
        before: str = "<mark>",
        after: str = "</mark>",
        escape: Callable[[str], str] = html.escape,
    ) -> str:
        """Returns the text with its spans marked; see `marked_text`."""
        return marked_text(self.text, self.spans, before, after, escape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Highlights:
    """Words of a query in a hit.

    title: Spans of the title, in order and apart. passage: The part of the chunk that has most of
    the query, or the beginning of the chunk; None if it has no text.
    """

    title: Sequence[TextSpan] = ()
    passage: Passage | None = None


def marked_text(
    text: str,
    spans: Sequence[TextSpan],
    before: str = "<mark>",
    after: str = "</mark>",
    escape: Callable[[str], str] = html.escape,
) -> str:
    """Returns a text with parts of it marked.

    Example: marked_text("R&B", [(0, 1)]) -> "<mark>R</mark>&amp;B".

    Args:
        text: The text.
        spans: Parts to mark, in order and apart.
        before, after: What is put around each.
        escape: Applied to the text; `str` leaves it as it is.
    """
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces += escape(text[at:start]), before, escape(text[start:end]), after
        at = end
    return "".join((*pieces, escape(text[at:])))
