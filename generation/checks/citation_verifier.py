"""Checks citations against what is served now."""

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
    """Looks cited documents up, as they are now.

    Args:
        retriever: Gives the documents.
        access: Who may see which; what a caller may not see is gone for them.
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
        """Returns what became of each citation; see `Generator.verify`.

        A document that does not fulfil `condition` is gone, as is one the caller may not see.
        Raises: InvalidRequest: none, or too many. NotReady: a shard does not answer.
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
            # Not GONE: nobody knows.
            raise NotReady(f"the shard of document {away[0]!r} does not answer; try again")
        texts = {
            item.id: item.text
            for item in reply.items
            if self._access.sees(caller, item.attributes)
            and (condition is None or admits(condition, item.attributes))
        }

        def checked() -> list[c.CitationCheck]:
            return [citations.check_citation(one, texts.get(one.document_id)) for one in cited]

        # A long document takes a hash per word.
        return c.VerifyReply(checks=await asyncio.to_thread(checked), info=reply.info)

    async def stand(
        self,
        cited: Sequence[c.Citation],
        collection: str,
        timeout_s: float | None,
        caller: Caller,
        condition: Filter | None = None,
    ) -> bool:
        """Returns whether every citation stands where it stood, and may be cited; none at all
        do."""
        if not cited:
            return True
        reply = await self.check(cited, collection, timeout_s, caller, condition)
        return all(one.verdict is c.Verdict.VALID for one in reply.checks)
