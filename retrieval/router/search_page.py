"""Pages of one search: a page token says where the next page begins, and on which snapshot.

20261128T074448Z-d96c29/20: the hits after the first twenty, on that snapshot
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from nearline import contract as c
from nearline.errors import InvalidRequest

_TOKEN = re.compile(r"([0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})/([1-9][0-9]{0,4})")


class SearchPage(NamedTuple):
    """Where a page begins: after so many hits, on this snapshot; empty is the current one."""

    snapshot_id: str = ""
    offset: int = 0

    @classmethod
    def of(cls, token: str, options: c.SearchOptions) -> SearchPage:
        """Returns the page of a token; the first page if there is none.

        Raises: InvalidRequest: the token was not issued by this service, the page lies beyond the
            most hits of a search, or hits are grouped.
        """
        if not token:
            return _FIRST
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise InvalidRequest(
                "page_token was not issued by this service; start again without page_token",
                field="page_token",
            )
        if options.grouping is not None:
            raise InvalidRequest(
                "grouped hits have no pages; ask for more groups (options.k)", field="page_token"
            )
        page = cls(found[1], int(found[2]))
        if page.offset + options.k > c.MAX_K:
            raise InvalidRequest(
                f"the page ends at hit {page.offset + options.k:,}; a search has at most "
                f"{c.MAX_K:,}: list items by a filter instead (ListItems)",
                field="page_token",
            )
        return page

    def widened(self, options: c.SearchOptions) -> c.SearchOptions:
        """Returns the options of the search for this page and all before it."""
        if not self.offset:
            return options
        return replace(options, k=self.offset + options.k, snapshot_id=self.snapshot_id)

    def cut(self, reply: c.SearchReply, options: c.SearchOptions) -> c.SearchReply:
        """Returns the reply of this page.

        Args:
            reply: To a search with `options`.
            options: As returned by `widened`.
        """
        found = reply.results[0]
        more = len(found.hits) == options.k < c.MAX_K and options.grouping is None
        token = f"{reply.info.snapshot_id}/{options.k}" if more else ""
        if self.offset:
            found = replace(found, hits=found.hits[self.offset :])
        return c.SearchReply(results=[found], info=reply.info, next_page_token=token)


_FIRST = SearchPage()
