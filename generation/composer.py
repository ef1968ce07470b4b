"""Composes an answer from evidence: returns a cached answer, refuses, or asks a writer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime

from generation.checks.citations import CitationVerifier
from generation.evidence.calibration import (
    DEFAULT_CALIBRATION,
    Calibration,
    CalibrationStore,
    Outcome,
    choose_calibration,
)
from generation.evidence.confidence import Confidence
from generation.evidence.evidence_reader import Evidence, EvidenceFeatures, EvidenceReader
from generation.evidence.strictness import StrictnessRules
from generation.memory.answer_cache import AnswerCache, AnswerKey, CachedAnswer
from generation.memory.conversation import ConversationMemory
from generation.memory.query_rewriter import unresolved_reference
from generation.memory.token_budgets import BudgetScope, TokenBudgets, TokenLimits
from generation.model_set import ModelSet
from generation.protocols import metrics
from generation.protocols.writer import AnswerTask, Writer
from generation.request_context import RequestContext
from generation.writers.extractive import EXTRACTIVE, ExtractiveWriter
from generation.writers.question_kinds import AnswerKind, QuestionKinds
from generation.writers.routing import ROUTING_POLICY, ModelRouter, QueryClass
from generation.writers.writer_chain import AnswerOutcome, Citer, WriterChain
from nearline import contract as c
from nearline.access.readers import ReaderFilter
from nearline.errors import NearlineError
from nearline.filters import admits
from nearline.sentences import estimate_tokens
from nearline.tracing.spans import note, stage

_MESSAGES = {
    c.RefusalReason.OFF_TOPIC: "The collection seems to be about other things",
    c.RefusalReason.NO_EVIDENCE: "Nothing that was found answers this",
}
# Titles of the nearest documents that a refusal names, and their length.
_NEAREST, _TITLE_CHARACTERS = 3, 60
_UNCLEAR = 'What does "{reference}" refer to? Nothing before says so: ask again, and name it.'
_NOTHING = Confidence(0.0, 0.0)
_NO_EVIDENCE = c.RefusalReason.NO_EVIDENCE
_NOTHING_FOUND = f"{_MESSAGES[_NO_EVIDENCE]}."


class AnswerComposer:
    """Composes answers from evidence.

    Args:
        reader: Measures the evidence.
        models: Language models, in addition to the extractive writer.
        readers: Decides which items each caller may see.
        memory: Saves the turn.
        verification: Checks the sources of cached answers.
        calibrations: Calibrations by snapshot; if None, the default applies to all.
        cache: Optional; None disables caching of answers.
        budgets: Optional; None sets no limits on models.
        strictness: How sure an answer must be, by collection.
    """

    def __init__(
        self,
        reader: EvidenceReader,
        models: ModelSet,
        readers: ReaderFilter,
        memory: ConversationMemory,
        verification: CitationVerifier,
        *,
        calibrations: CalibrationStore | None,
        cache: AnswerCache | None,
        budgets: TokenBudgets | None,
        strictness: StrictnessRules,
    ) -> None:
        self.writers: dict[str, Writer] = {EXTRACTIVE: ExtractiveWriter(), **models.writers}
        self._reader = reader
        self._models = models
        self._readers = readers
        self._memory = memory
        self._verification = verification
        self._calibrations = calibrations
        self._cache = cache
        self._strictness = strictness
        self._budgets = budgets or TokenBudgets(None, TokenLimits())
        # Without a model, there is nothing to choose.
        self._kinds = QuestionKinds(reader.embedder if models.writers else None)
        self._router = ModelRouter(tuple(self.writers))

    async def compose(
        self, call: RequestContext, found: Evidence
    ) -> AsyncGenerator[c.AnswerEvent, None]:
        """Yields everything after the evidence: text and citations, usage, and the end."""
        calibration, certain = DEFAULT_CALIBRATION, True
        if self._calibrations is not None:
            snapshot = call.collection, call.snapshot_id
            calibration = await self._calibrations.of(*snapshot, call.left_s())
            certain = self._calibrations.knows(*snapshot)
        call.calibrated = calibration.calibrated
        if not found.units:
            for end in await self._refuse(call, _NO_EVIDENCE, _NOTHING, _NOTHING_FOUND):
                yield end
            return
        # Without the snapshot's calibration the answer must not be cached.
        key = self._key(call) if certain else None
        with stage("look for cached answer"):
            cached = await self._cached(call, key)
        if cached is not None:
            for event in await self._repeat(call, cached):
                yield event
            return
        with stage("read evidence"):
            reading = await self._reader.read(found, call.left_s())
        calibration = choose_calibration(calibration, judged=reading.judged)
        sure = calibration.assess(reading.signals)
        outcome = Outcome.ANSWERED
        if call.question.refuse:
            outcome = calibration.decide(sure, self._strictness_of(call))
        if outcome is Outcome.REFUSED:
            reason, message = _refusal(call, found, sure, calibration)
            for end in await self._refuse(call, reason, sure, message):
                yield end
            return
        closest = outcome is Outcome.NOT_SURE
        parts = self._write(call, found, reading, sure, calibration, key, closest=closest)
        async with contextlib.aclosing(parts):
            async for event in parts:
                yield event

    async def _write(
        self,
        call: RequestContext,
        found: Evidence,
        reading: EvidenceFeatures,
        sure: Confidence,
        calibration: Calibration,
        key: AnswerKey | None,
        *,
        closest: bool,
    ) -> AsyncGenerator[c.AnswerEvent, None]:
        asked = call.question
        kind = AnswerKind.UNKNOWN
        # A model would write an answer, so it does not show the closest passages.
        backend = EXTRACTIVE if closest else asked.backend
        if not backend:
            model = found.reply.info.fingerprint
            kind = await self._kinds.of(
                call.condensed, found.question_vectors, model, call.left_s()
            )
        query = QueryClass.of(kind, sure.evidence, [source.best.score for source in found.sources])
        route = self._router.route(query, asked=backend, left_s=call.left_s())
        route, reservation = await self._budgets.admit(
            route,
            self._models.prompt_tokens + asked.max_tokens,
            BudgetScope(
                collection=call.collection,
                tenant=call.caller.tenant,
                session_id=asked.session_id,
                now=datetime.now(UTC),
            ),
        )
        task = AnswerTask(
            question=call.condensed,
            history=call.recalled.turns,
            found=found,
            scores=calibration.rank(reading.features),
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            timeout_s=call.left_s(),
            mark=asked.unsupported is c.Unsupported.MARK,
            may_decline=asked.refuse,
            closest=closest,
        )
        citer = Citer(found.sources, call.snapshot_id, lambda hit: self._may_cite(call, hit))
        answering = WriterChain(self.writers, route, task, citer, self._models.prices)
        sent: list[c.Delta | c.Citation] = []
        async with contextlib.aclosing(answering.events()) as events:
            async for event in events:
                call.sends(event, answering.outcome.backend)
                sent.append(event)
                yield event
        outcome = answering.outcome
        await self._budgets.settle(reservation, outcome.prompt_tokens + outcome.completion_tokens)
        metrics.left_out.labels("sentence").inc(outcome.dropped_sentences)
        metrics.left_out.labels("marker").inc(outcome.dropped_markers)
        cites = outcome.citations > 0 or not closest
        if not (outcome.text and cites) and outcome.finish is not c.Finish.DEADLINE:
            # Every sentence was unsupported, or may not be cited.
            for end in await self._refuse(call, _NO_EVIDENCE, sure, _NOTHING_FOUND, outcome):
                yield end
            return
        reason = "; ".join(filter(None, (outcome.reason, found.degraded, reading.degraded)))
        source = c.Source.LIVE
        for end in await self._done(call, outcome, sure.evidence, source, reason, closest=closest):
            yield end
        # After the end, so that the caller does not wait for it.
        full = _is_full(found.reply.info) and not found.degraded and not reading.degraded
        if self._cache is not None and key is not None and outcome.whole and full:
            answer = CachedAnswer(
                sent,
                outcome.backend,
                sure.evidence,
                outcome.dropped_sentences,
                outcome.dropped_markers,
                found.reply.info.watermark.hex(),
                closest,
            )
            await self._cache.put(key, answer)

    async def _repeat(self, call: RequestContext, cached: CachedAnswer) -> list[c.AnswerEvent]:
        for event in cached.events:
            call.sends(event, cached.backend)
        outcome = AnswerOutcome(
            backend=cached.backend,
            text=cached.text,
            citations=len(cached.citations),
            dropped_sentences=cached.dropped_sentences,
            dropped_markers=cached.dropped_markers,
        )
        probability, closest = cached.evidence_probability, cached.not_sure
        source = c.Source.CACHE
        ends = await self._done(call, outcome, probability, source, "", closest=closest)
        return [*cached.events, *ends]

    async def _done(
        self,
        call: RequestContext,
        outcome: AnswerOutcome,
        evidence: float,
        source: c.Source,
        reason: str,
        *,
        closest: bool,
    ) -> list[c.AnswerEvent]:
        cached = source is c.Source.CACHE
        ended = "not_sure" if closest else "cached" if cached else outcome.finish.value
        note({"backend": outcome.backend, "finish": outcome.finish.value, "cached": cached})
        metrics.answers.labels(call.collection, ended).inc()
        fell = len(outcome.attempts) > 1 or bool(outcome.reason)
        done = c.Done(
            tokens=estimate_tokens(outcome.text),
            citations=outcome.citations,
            evidence_probability=evidence,
            calibrated=call.calibrated,
            truncated=outcome.finish is not c.Finish.COMPLETE,
            finish=outcome.finish,
            dropped_sentences=outcome.dropped_sentences,
            dropped_markers=outcome.dropped_markers,
            session=await self._remember(call, "" if closest else outcome.text),
            not_sure=closest,
            served_by=c.ServedBy(
                source=c.Source.FALLBACK if fell else source, rung=outcome.backend, reason=reason
            ),
        )
        return [call.usage(outcome), done]

    async def _refuse(
        self,
        call: RequestContext,
        reason: c.RefusalReason,
        sure: Confidence,
        message: str,
        outcome: AnswerOutcome | None = None,
    ) -> list[c.AnswerEvent]:
        note({"refused": reason.value})
        metrics.answers.labels(call.collection, reason.value).inc()
        refusal = c.Refusal(
            reason=reason,
            topic_probability=sure.topic,
            evidence_probability=sure.evidence,
            calibrated=call.calibrated,
            message=message,
            session=await self._remember(call, ""),
        )
        return [call.usage(outcome or AnswerOutcome()), refusal]

    async def _remember(self, call: RequestContext, answer: str) -> c.SessionState | None:
        return await self._memory.remember(
            call.question,
            call.collection,
            call.caller,
            call.recalled,
            condensed=call.condensed,
            answer=answer,
            snapshot_id=call.snapshot_id,
        )

    def _strictness_of(self, call: RequestContext) -> c.Strictness:
        return call.question.strictness or self._strictness.of(call.collection)

    def _key(self, call: RequestContext) -> AnswerKey | None:
        """Returns the cache key of an answer; None if it must not be cached or reused.

        A model sees earlier turns, so its answers belong to one conversation.
        """
        asked = call.question
        alone = not call.recalled.turns or asked.backend == EXTRACTIVE or not self._models.writers
        if self._cache is None or asked.temperature or not alone or call.info is None:
            return None
        return AnswerKey(
            collection=call.collection,
            caller=call.caller,
            question=call.condensed,
            options=replace(asked, strictness=self._strictness_of(call)),
            snapshot_id=call.snapshot_id,
            fingerprint=call.info.fingerprint,
            policy=f"{ROUTING_POLICY} {self._models.version} {self._reader.version}",
        )

    async def _cached(self, call: RequestContext, key: AnswerKey | None) -> CachedAnswer | None:
        """Returns a cached answer whose sources are all unchanged; None if there is none."""
        if self._cache is None or key is None or call.question.fresh:
            return None
        answer = await self._cache.get(key)
        least = call.question.min_watermark
        if answer is None or not answer.includes(least):
            return None
        try:
            valid = await self._verification.all_valid(
                answer.citations,
                call.collection,
                call.left_s(),
                call.caller,
                call.question.filter,
                least,
            )
        except NearlineError:
            # The sources cannot be checked, so the answer is written again.
            valid = False
        metrics.cache_reads.labels("hit" if valid else "stale").inc()
        return answer if valid else None

    def _may_cite(self, call: RequestContext, hit: c.Hit) -> bool:
        attributes = hit.attributes or {}
        if not self._readers.sees(call.caller, attributes):
            return False
        condition = call.question.filter
        return condition is None or admits(condition, attributes)


def _is_full(info: c.ReplyInfo) -> bool:
    """Returns whether the search was complete: every shard answered, without a poorer fallback."""
    seen = info.coverage
    return seen.shards_answered >= seen.shards_total and (
        info.served_by.source is not c.Source.FALLBACK or info.served_by.rung == c.CPU_RUNG
    )


def _refusal(
    call: RequestContext, found: Evidence, sure: Confidence, calibration: Calibration
) -> tuple[c.RefusalReason, str]:
    """Returns why a question is refused, with a message."""
    reference = unresolved_reference(call.question.text, call.recalled.turns)
    if reference:
        return c.RefusalReason.UNCLEAR, _UNCLEAR.format(reference=reference)
    strange = sure.topic < calibration.topic_threshold
    reason = c.RefusalReason.OFF_TOPIC if strange else _NO_EVIDENCE
    return reason, f"{_MESSAGES[reason]}; {_looked_at(found)}."


def _looked_at(found: Evidence) -> str:
    """Returns which documents are nearest to a question."""
    names = [" ".join((source.best.title or source.best.id).split()) for source in found.sources]
    shown = [
        f'"{name if len(name) <= _TITLE_CHARACTERS else f"{name[:_TITLE_CHARACTERS]}…"}"'
        for name in names[:_NEAREST]
    ]
    more = len(names) - len(shown)
    others = f" and {more} more" if more > 0 else ""
    return f"the nearest are {', '.join(shown)}{others}"
