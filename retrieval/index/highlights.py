"""Highlights of items that a search has found: in the shard that holds them, for its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nearline.contract import Highlights, Item, Passage, PayloadField
from retrieval.index.lexical.passages import best_passage
from retrieval.index.lexical.word_matcher import WordMatcher, merged_spans
from retrieval.protocols.compute_threads import Stopped
from retrieval.protocols.shard import ItemsRequest

# Code points of a text in which words are looked for; 50 ms.
MAX_HIGHLIGHTED = 131_072
_READ = frozenset({PayloadField.TITLE, PayloadField.TEXT})
# Returns the matcher of a query in a collection of so many chunks; None without a word index.
MatcherOf = Callable[[str, int], WordMatcher | None]


def with_texts(request: ItemsRequest) -> ItemsRequest:
    """Returns the request with the parts that are needed to highlight its items."""
    return request._replace(payload=request.payload | _READ)


def highlight_items(
    items: Sequence[Item | None],
    request: ItemsRequest,
    matchers: Sequence[MatcherOf],
    stopped: Stopped = lambda: False,
) -> tuple[list[Item], list[list[Highlights]]]:
    """Highlights items; blocks.

    Args:
        items: One per id of the request, read with `with_texts`; None for those that are absent.
        request: The request, with queries to highlight.
        matchers: For each item, what makes the matchers for its words.
        stopped: Returns whether the result is no longer needed.
    Returns: The items with the parts of the request, and the highlights of each, by query.
    """
    wanted = request.highlight
    assert wanted is not None
    made: dict[tuple[MatcherOf, int], WordMatcher | None] = {}
    kept: list[Item] = []
    found: list[list[Highlights]] = []
    for place, item in enumerate(items):
        if item is None:
            continue
        if stopped():
            break
        highlights = []
        for query in wanted.queries[place]:
            make, text = matchers[place], wanted.texts[query]
            key = make, query
            if key not in made:
                made[key] = make(text, wanted.chunks) if text else None
            highlights.append(highlight(item, made[key], wanted.passage_chars))
        found.append(highlights)
        kept.append(_without_texts(item, request))
    return kept, found


def highlight(item: Item, matcher: WordMatcher | None, passage_chars: int) -> Highlights:
    """Highlights one item with its title and text; without a matcher, it has no words."""
    title, text = item.title[:MAX_HIGHLIGHTED], item.text[:MAX_HIGHLIGHTED]
    in_title = [] if matcher is None else matcher.find(title)
    passage = None
    if text.strip():
        words = [] if matcher is None else matcher.find(text)
        start, end = best_passage(text, words, passage_chars)
        inside = merged_spans(word for word in words if start <= word.start and word.end <= end)
        spans = tuple((first - start, last - start) for first, last in inside)
        passage = Passage(start=start, end=end, text=text[start:end], spans=spans)
    return Highlights(title=tuple(merged_spans(in_title)), passage=passage)


def _without_texts(item: Item, request: ItemsRequest) -> Item:
    title = item.title if PayloadField.TITLE in request.payload else ""
    text = item.text if PayloadField.TEXT in request.payload else ""
    return replace(item, title=title, text=text)
