"""Completions of what somebody types, over all shards."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import InvalidRequest, Unsupported
from nearline.filters import both
from nearline.wire.limits import LIMITS, check_range
from retrieval.index.suggestions import suggestion_order
from retrieval.protocols.shard import SuggestRequest
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext, check_names


async def suggest(
    collection: ServedCollection,
    text: str,
    limit: int,
    filter: c.Filter | None,
    context: RequestContext,
) -> tuple[list[c.Suggestion], str]:
    """Returns titles that complete a text, each once, and the correction of the text.

    There is no correction for callers who may see some items only.

    Raises: InvalidRequest: the text is empty or too long, or the limit is out of range.
        Unsupported: there is no lexical index of titles. Errors of the shards.
    """
    if not text.strip():
        raise InvalidRequest("text is empty; send the first letters of a title", field="text")
    typed = LIMITS["SuggestRequest.text"]
    check_range(len(text), "text", typed, "search for a text that long", " characters")
    check_range(limit, "limit", LIMITS["SuggestRequest.limit"]._replace(least=1))
    if not collection.has_words:
        raise Unsupported(
            f"snapshot {collection.snapshot_id} of {collection.name!r} has no lexical index, so "
            "titles cannot be completed; build it from texts, without --no-lexical"
        )
    check_names(collection, context.visible, filter)
    # Documents of one title are one suggestion.
    wanted = SuggestRequest(
        text,
        min(2 * limit, c.MAX_SUGGESTIONS),
        both(filter, context.visible),
        context.min_watermark,
    )
    calls = {
        number: shard.suggest(collection.snapshot_id, wanted, context.deadline)
        for number, shard in enumerate(collection.shards)
    }
    results, _ = await fanout.gather_reads(calls, context, collection=collection.name)
    found: dict[str, c.Suggestion] = {}
    parts = [one for result in results.values() for one in result.suggestions]
    for one in sorted(parts, key=suggestion_order):
        found.setdefault(one.title.casefold(), one)
    # It would tell which words are in items that the caller may not see.
    told = results.values() if context.visible is None else ()
    return list(found.values())[:limit], next((one.correction for one in told), "")
