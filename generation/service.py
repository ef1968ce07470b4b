"""The generation service: the domain object behind the wire, also usable in process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import replace

from generation.checks.citations import CitationVerifier
from generation.composer import AnswerComposer
from generation.evidence.calibration import CalibrationStore
from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.strictness import StrictnessRules
from generation.memory.answer_cache import AnswerCache
from generation.memory.conversation import ConversationMemory
from generation.memory.query_rewriter import rewrite_query
from generation.memory.token_budgets import TokenBudgets
from generation.model_set import NO_MODELS, ModelSet
from generation.request_context import RequestContext
from nearline import contract as c
from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.readers import ReaderFilter
from nearline.errors import InvalidRequest, NotFound
from nearline.filters import text_conditions
from nearline.tracing.spans import stage
from nearline.wire.limits import LIMITS, TEXT, check_count, check_range


def check_question(question: c.Question, writers: Collection[str]) -> None:
    """Raises InvalidRequest if a question can never be answered; names the field.

    Args:
        question: The question.
        writers: Allowed values of `backend`.
    """
    _check_text("question", question.text)
    for name, least in (("max_tokens", 1), ("documents", 1), ("temperature", 0)):
        limit = LIMITS[f"GenerateRequest.{name}"]._replace(least=least)
        check_range(getattr(question, name), name, limit)
    if question.filter is not None and any(text_conditions(question.filter)):
        # Turns of a conversation are checked against the filter by the attributes of their items.
        raise InvalidRequest(
            "filter has a condition on title and text (WORDS, PHRASE), which questions cannot "
            "have; use conditions on attributes",
            field="filter",
        )
    if question.backend and question.backend not in writers:
        raise InvalidRequest(
            f"there is no backend {question.backend!r}; there are {', '.join(sorted(writers))}. "
            "Configure models with NEARLINE_GENERATION_SMALL and _LARGE of the service",
            field="backend",
        )
    if question.session_id and question.history:
        raise InvalidRequest(
            "session_id and history are both set; send only one, a session stores its own turns",
            field="history",
        )
    if question.session_version and not question.session_id:
        raise InvalidRequest(
            "session_version is set without session_id; send both or neither",
            field="session_version",
        )
    check_count(len(question.history), "history", LIMITS["GenerateRequest.history"])
    for at, turn in enumerate(question.history):
        _check_text(f"history[{at}].question", turn.question)
        size = len(turn.answer)
        check_range(size, f"history[{at}].answer", LIMITS["Turn.answer"], unit=" characters")
        if turn.condensed:
            _check_text(f"history[{at}].condensed", turn.condensed)


def _check_text(field: str, text: str) -> None:
    # What is not printable cannot be seen, such as a zero-width space.
    if not any(one.isprintable() and not one.isspace() for one in text):
        raise InvalidRequest(f"{field} is empty; send a question", field=field)
    check_range(len(text), field, TEXT, unit=" characters")


class GenerationService:
    """Answers questions from a collection; a `Generator`. Keeps no state between calls.

    Args:
        retriever: Finds evidence and cited texts.
        reader: Finds and measures evidence.
        models: Language models, in addition to the extractive writer.
        calibrations: Calibrations by snapshot; if None, the default applies to all.
        readers: Optional; if None, every caller may see everything.
        memory: Optional; None disables sessions.
        cache: Optional; None disables caching of answers.
        budgets: Optional; None sets no limits on models.
        strictness: How sure an answer must be, by collection, if the question does not say.
    """

    def __init__(
        self,
        retriever: c.Retriever,
        reader: EvidenceReader,
        *,
        models: ModelSet = NO_MODELS,
        calibrations: CalibrationStore | None = None,
        readers: ReaderFilter | None = None,
        memory: ConversationMemory | None = None,
        cache: AnswerCache | None = None,
        budgets: TokenBudgets | None = None,
        strictness: StrictnessRules | None = None,
    ) -> None:
        self._reader = reader
        self._readers = readers or ReaderFilter()
        self._memory = memory or ConversationMemory(None)
        self._verification = CitationVerifier(retriever, self._readers)
        self._composer = AnswerComposer(
            reader,
            models,
            self._readers,
            self._memory,
            self._verification,
            calibrations=calibrations,
            cache=cache,
            budgets=budgets,
            strictness=strictness or StrictnessRules(),
        )

    async def generate(
        self,
        question: c.Question,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> AsyncGenerator[c.AnswerEvent, None]:
        """Answers a question; see `Generator.generate`."""
        check_question(question, self._composer.writers)
        call = RequestContext(question, collection, caller, timeout_s)
        with stage("recall conversation"):
            call.recalled = await self._memory.recall(question, collection, caller)
        call.condensed = rewrite_query(question.text, call.recalled.turns)
        narrowed = self._readers.narrow(question.filter, caller)
        asked = replace(question, text=call.condensed, filter=narrowed)
        with stage("find evidence"):
            found = await self._reader.find(asked, collection, call.left_s())
        call.found(found.reply.info)
        yield c.Evidence(
            # Attributes were read for the rights check only; they name other readers.
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
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> c.VerifyReply:
        """Checks citations against the served documents; see `Generator.verify`."""
        return await self._verification.check(
            cited, collection, timeout_s, caller, min_watermark=min_watermark
        )

    async def session(
        self,
        session_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> c.Session:
        """Returns a stored conversation; see `Generator.session`."""
        session = await self._memory.sessions.load(collection, caller.owner, session_id)
        if not session.version:
            raise NotFound(
                f"there is no session {session_id!r}; it never existed, has expired, or was deleted"
            )
        return session

    async def delete_session(
        self,
        session_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> bool:
        """Deletes a conversation; see `Generator.delete_session`."""
        return await self._memory.sessions.delete(collection, caller.owner, session_id)
