"""Deletes the items that match a filter, page by page."""

from __future__ import annotations

import asyncio

from nearline import contract as c
from nearline.errors import InvalidRequest, SnapshotGone
from nearline.wire.limits import LIMITS, check_range
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks

_PAGE = 500
_PAUSE_S = 0.1


async def delete_matching(
    retriever: c.Retriever,
    writer: c.ItemWriter,
    filter: c.Filter | None,
    *,
    limit: int = 0,
    collection: str = c.DEFAULT_COLLECTION,
    min_watermark: bytes = b"",
    timeout_s: float | None = None,
) -> c.FilteredDeletion:
    """Deletes items that match a filter, in id order.

    An item that changes between the two steps, so that it no longer matches, is deleted too.

    Args:
        retriever, writer: Read and write the items.
        filter: Required; to delete every item, drop the collection.
        limit: Most items to delete, 1..10,000; 0 is 10,000.
        collection: Name of the collection.
        min_watermark: Matches are read from a state that includes it.
        timeout_s: For the whole call; what was deleted by then stays deleted.
    Raises: InvalidRequest: There is no filter, or the limit is out of range. As `list_items` and
        `delete_items`.
    """
    if filter is None:
        raise InvalidRequest(
            "filter is not set; name the items to delete, or drop the collection", field="filter"
        )
    allowed = LIMITS["DeleteItemsByFilterRequest.limit"]
    check_range(limit, "limit", allowed)
    most = limit or int(allowed.most)
    loop = asyncio.get_running_loop()
    deadline = None if timeout_s is None else loop.time() + timeout_s
    newest: Watermark | None = None
    deleted, token = 0, ""
    while True:
        left_s = None if deadline is None else deadline - loop.time()
        try:
            page = await retriever.list_items(
                page_size=min(_PAGE, most - deleted),
                page_token=token,
                filter=filter,
                collection=collection,
                min_watermark=min_watermark,
                timeout_s=left_s,
            )
        except SnapshotGone:
            # Another snapshot is served now: begin again, without those that are deleted.
            token, min_watermark = "", newest.encode() if newest else min_watermark
            await asyncio.sleep(_PAUSE_S)
            continue
        if page.items:
            reply = await writer.delete_items(
                [item.id for item in page.items], collection=collection, timeout_s=left_s
            )
            deleted += sum(one.outcome is c.WriteOutcome.DELETED for one in reply.results)
            mark = decode_watermark(reply.watermark)
            newest = mark if newest is None or mark is None else merge_watermarks((newest, mark))
        token = page.next_page_token
        if not token or deleted >= most:
            watermark = newest.encode() if newest else b""
            return c.FilteredDeletion(deleted=deleted, more=bool(token), watermark=watermark)
