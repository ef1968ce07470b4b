"""The generation service: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from generation.checks.citation_verifier import Verification
from generation.composer import Composer
from generation.evidence.calibration import Calibrations
from generation.evidence.evidence_reader import Reader
from generation.memory.answer_cache import AnswerCache
from generation.memory.conversation import Memory
from generation.memory.query_rewriter import condense
from generation.memory.token_budgets import Budgets
from generation.model_set import NO_MODELS, Models
from generation.protocols import request_validation
from generation.protocols.access import ANYBODY, Access, Caller
from generation.request_context import Call
from nearline import contract as c
from nearline.errors import NotFound


class GenerationService:
    """Answers questions from what a collection holds; a `Generator`. Holds no state of calls.

    Args:
        retriever: Finds evidence, and texts that were cited.
        reader: Finds and measures evidence.
        models: What writes beside the extractive writer.
        calibrations: Of snapshots; None: the shipped one for all.
        access: Who may see what; None: everybody everything.
        memory: Of conversations; None: no sessions.
        cache: Answers given before; None: none are kept.
        budgets: Of models; None: no limits.
    """

    def __init__(
        self,
        retriever: c.Retriever,
        reader: Reader,
        *,
        models: Models = NO_MODELS,
        calibrations: Calibrations | None = None,
        access: Access | None = None,
        memory: Memory | None = None,
        cache: AnswerCache | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._reader = reader
        self._access = access or Access()
        self._memory = memory or Memory(None)
        self._verification = Verification(retriever, self._access)
        self._composer = Composer(
            reader,
            models,
            self._access,
            self._memory,
            self._verification,
            calibrations=calibrations,
            cache=cache,
            budgets=budgets,
        )

    async def generate(
        self,
        question: c.Question,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANYBODY,
    ) -> AsyncGenerator[c.AnswerEvent, None]:
        """Answers a question; see `Generator.generate`."""
        request_validation.check(question, self._composer.writers)
        call = Call(question, collection, caller, timeout_s)
        call.recalled = await self._memory.recall(question, collection, caller)
        call.condensed = condense(question.text, call.recalled.turns)
        narrowed = self._access.narrow(question.filter, caller)
        asked = replace(question, text=call.condensed, filter=narrowed)
        found = await self._reader.find(asked, collection, call.left_s())
        call.found(found.reply.info)
        yield c.Evidence(
            # Attributes were read for the filter; those of rights name other readers.
            documents=[replace(source.best, attributes=None) for source in found.sources],
            info=found.reply.info,
            condensed=call.condensed if call.condensed != question.text else "",
        )
        async with contextlib.aclosing(self._composer.compose(call, found)) as events:
            async for event in events:
                yield event

    async def verify(
        self,
        cited: Sequence[c.Citation],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANYBODY,
    ) -> c.VerifyReply:
        """Checks citations against what is served now; see `Generator.verify`."""
        return await self._verification.check(cited, collection, timeout_s, caller)

    async def session(
        self,
        session_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANYBODY,
    ) -> c.Session:
        """Gives all that is remembered of a conversation; see `Generator.session`."""
        session = await self._memory.sessions.load(collection, caller.owner, session_id)
        if not session.version:
            raise NotFound(
                f"nothing is remembered of session {session_id!r}; it never was, it expired, or it "
                "was deleted"
            )
        return session

    async def delete_session(
        self,
        session_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANYBODY,
    ) -> bool:
        """Forgets a conversation; see `Generator.delete_session`."""
        return await self._memory.sessions.delete(collection, caller.owner, session_id)
