"""Checks citations against the documents that are served now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from generation.checks import citations
from generation.protocols.access import AccessControl, Caller
from nearline import contract as c
from nearline.errors import InvalidRequest, NotReady
from nearline.filters import Filter, admits

_PAYLOAD = frozenset({c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})


class CitationVerifier:
    """Checks citations against the current texts of the cited documents.

    Args:
        retriever: Reads the documents.
        access: Rights of callers; a document that a caller may not see counts as gone.
    """

    def __init__(self, retriever: c.Retriever, access: AccessControl) -> None:
        self._retriever = retriever
        self._access = access

    async def check(
        self,
        cited: Sequence[c.Citation],
        collection: str,
        timeout_s: float | None,
        caller: Caller,
        condition: Filter | None = None,
    ) -> c.VerifyReply:
        """Returns the verdict on each citation; see `Generator.verify`.

        A document counts as gone if it does not match `condition`, or if the caller may not see it.
        Raises: InvalidRequest: there are no citations, or too many. NotReady: a shard does not
            respond.
        """
        if not 1 <= len(cited) <= c.MAX_BATCH:
            raise InvalidRequest(
                f"there are {len(cited)} citations; 1..{c.MAX_BATCH} are allowed",
                field="citations",
            )
        ids = list(dict.fromkeys(one.document_id for one in cited))
        reply = await self._retriever.get_items(
            ids, _PAYLOAD, collection=collection, timeout_s=timeout_s
        )
        away = [
            one.id for one in reply.ignored_ids if one.reason is c.IgnoredReason.SHARD_UNAVAILABLE
        ]
        if away:
            # The verdict is unknown, which is not GONE.
            raise NotReady(f"the shard of document {away[0]!r} does not respond; try again")
        texts = {
            item.id: item.text
            for item in reply.items
            if self._access.sees(caller, item.attributes)
            and (condition is None or admits(condition, item.attributes))
        }

        def checked() -> list[c.CitationCheck]:
            return [citations.check_citation(one, texts.get(one.document_id)) for one in cited]

        # In a thread, because a long document takes one hash per word.
        return c.VerifyReply(checks=await asyncio.to_thread(checked), info=reply.info)

    async def all_valid(
        self,
        cited: Sequence[c.Citation],
        collection: str,
        timeout_s: float | None,
        caller: Caller,
        condition: Filter | None = None,
    ) -> bool:
        """Returns whether all citations are valid and in place; True if there are none."""
        if not cited:
            return True
        reply = await self.check(cited, collection, timeout_s, caller, condition)
        return all(one.verdict is c.Verdict.VALID for one in reply.checks)
