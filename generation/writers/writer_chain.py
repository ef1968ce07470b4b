"""Writes one answer: tries the writers of its route in order, and numbers the citations."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from generation.backends.model_settings import TokenPrice
from generation.checks.citations import clean_text, text_hash
from generation.checks.link_filter import defuse_text
from generation.evidence.sources import EvidenceSource, Span
from generation.protocols import metrics
from generation.protocols.chat_model import ChatError, ChatFailure
from generation.protocols.writer import AnswerPiece, AnswerTask, Writer, WriterEnd
from generation.writers.extractive import EXTRACTIVE
from generation.writers.routing import Route, remaining_rungs
from nearline import contract as c
from nearline.tracing.spans import current_span, record_part

# Reserved from the caller's time while a model writes: enough to answer from the evidence instead,
# and for the end to arrive.
_KEPT_S = 0.25
# Extra time for a writer that keeps its own limit, to report its usage.
_GRACE_S = 0.1
_UNSUPPORTED = "nothing that it wrote is supported by the evidence"
_DECLINED = "it finds no answer in the evidence"


class Citer:
    """Numbers the citations of one answer. A span that is cited twice keeps its number.

    Args:
        sources: The evidence.
        snapshot_id: Snapshot of the evidence.
        admits: Returns whether an item with these attributes may be cited; checked again here,
            independently of the search.
    """

    def __init__(
        self, sources: Sequence[EvidenceSource], snapshot_id: str, admits: Callable[[c.Hit], bool]
    ) -> None:
        self._sources = sources
        self._snapshot_id = snapshot_id
        self._admits = admits
        self._numbers: dict[tuple[int, int, int], int] = {}

    @property
    def count(self) -> int:
        """The citations so far."""
        return len(self._numbers)

    def events(self, said: AnswerPiece) -> list[c.Delta | c.Citation]:
        """Returns a delta with its markers, and the new citations.

        Returns: Nothing if a source may not be cited; the piece must then be omitted.
        """
        spans = [span for span in said.spans if self._admits(self._sources[span.source].best)]
        if said.spans and len(spans) < len(said.spans):
            return []
        markers, fresh = "", []
        for span, support in zip(spans, said.support, strict=True):
            key = (span.source, span.start, span.end)
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self._numbers) + 1
                fresh.append(self._citation(number, span, support))
            marker = f"[{number}]"
            if marker not in markers:
                markers += marker
        text = f"{said.text} {markers}" if markers else said.text
        return [c.Delta(text, bool(said.problems), tuple(said.problems)), *fresh]

    def _citation(self, number: int, span: Span, support: float) -> c.Citation:
        source = self._sources[span.source]
        return c.Citation(
            number=number,
            document_id=source.best.id,
            chunk=span.passages[0].chunk,
            char_start=span.start,
            char_end=span.end,
            text_hash=text_hash(source.text(span)),
            snapshot_id=self._snapshot_id,
            title=defuse_text(clean_text(source.best.title or "")),
            support=support,
        )


@dataclass(slots=True)
class AnswerOutcome:
    """The outcome of an answer; filled while it is written."""

    backend: str = EXTRACTIVE
    finish: c.Finish = c.Finish.COMPLETE
    reason: str = ""
    text: str = ""
    citations: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    dropped_sentences: int = 0
    dropped_markers: int = 0
    declined: bool = False
    attempts: list[c.Attempt] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the answer is complete and by the first choice."""
        return self.finish is c.Finish.COMPLETE and not self.reason


class WriterChain:
    """The writing of one answer.

    Args:
        writers: By name.
        route: Writers to try.
        task: The task.
        citer: Numbers the citations.
        prices: Prices by writer; a writer without one is free.
    """

    def __init__(
        self,
        writers: Mapping[str, Writer],
        route: Route,
        task: AnswerTask,
        citer: Citer,
        prices: Mapping[str, TokenPrice],
    ) -> None:
        self.outcome = AnswerOutcome(reason=route.reason)
        self._writers = writers
        self._rungs = route.rungs
        self._task = task
        self._citer = citer
        self._prices = prices
        self._deadline = None if task.timeout_s is None else time.monotonic() + task.timeout_s

    async def events(self) -> AsyncGenerator[c.Delta | c.Citation, None]:
        """Yields the text and its citations; `outcome` is complete afterwards.

        After a failure before the first piece, the next writer continues. A later failure ends the
        answer: texts of two writers are never combined.
        """
        outcome, rungs = self.outcome, self._rungs
        while True:
            start = time.monotonic()
            call = current_span()
            outcome.backend = rungs[0]
            failed: ChatError | None = None
            parts = self._parts(rungs[0])
            try:
                async with contextlib.aclosing(parts):
                    async for event in parts:
                        yield event
                if not outcome.text:
                    failed = ChatError(
                        ChatFailure.EMPTY, _DECLINED if outcome.declined else _UNSUPPORTED
                    )
            except ChatError as error:
                failed = error
            seconds = time.monotonic() - start
            if call is not None:
                record_part(call, f"write ({rungs[0]})", seconds)
            outcome.citations = self._citer.count
            outcome.attempts.append(
                c.Attempt(
                    backend=rungs[0], failure=failed.message if failed else "", seconds=seconds
                )
            )
            metrics.rungs.labels(rungs[0], failed.failure.name.lower() if failed else "ok").inc()
            if failed is None:
                return
            self._count(rungs[0], failed.prompt_tokens, failed.completion_tokens)
            outcome.reason = f"{rungs[0]}: {failed.failure.value} ({failed.message})"
            if outcome.declined and self._task.may_decline:
                return
            rungs = remaining_rungs(rungs, failed.failure)
            if outcome.text or not rungs:
                late = failed.failure is ChatFailure.DEADLINE
                outcome.finish = c.Finish.DEADLINE if late else c.Finish.INTERRUPTED
                return

    async def _parts(self, name: str) -> AsyncGenerator[c.Delta | c.Citation, None]:
        outcome = self.outcome
        limit_s = self._left_s(0.0 if name == EXTRACTIVE else _KEPT_S)
        task = replace(self._task, timeout_s=limit_s)
        end = None if limit_s is None else time.monotonic() + limit_s + _GRACE_S
        async with contextlib.aclosing(self._writers[name].write(task)) as parts:
            while True:
                try:
                    # No `yield` inside: a timeout must not interrupt the caller's code.
                    async with asyncio.timeout(None if end is None else end - time.monotonic()):
                        part = await anext(parts)
                except TimeoutError:
                    raise ChatError(ChatFailure.DEADLINE, "the caller's deadline passed") from None
                if isinstance(part, WriterEnd):
                    break
                for event in self._said(part):
                    yield event
        # Of this writer: an earlier one may have been cut before any supported text.
        outcome.finish = c.Finish.LENGTH if part.length else c.Finish.COMPLETE
        outcome.dropped_sentences += part.dropped_sentences
        outcome.dropped_markers += part.dropped_markers
        outcome.declined = part.declined
        self._count(name, part.prompt_tokens, part.completion_tokens)

    def _said(self, said: AnswerPiece) -> list[c.Delta | c.Citation]:
        if not self.outcome.text:
            said = said._replace(text=said.text.lstrip())
        events = self._citer.events(said)
        if not events:
            self.outcome.dropped_sentences += 1
        self.outcome.text += "".join(one.text for one in events if isinstance(one, c.Delta))
        return events

    def _count(self, name: str, prompt_tokens: int, completion_tokens: int) -> None:
        if name == EXTRACTIVE:
            return
        self.outcome.prompt_tokens += prompt_tokens
        self.outcome.completion_tokens += completion_tokens
        price = self._prices.get(name)
        cost = price.of(prompt_tokens, completion_tokens) if price else 0.0
        self.outcome.cost += cost
        metrics.tokens.labels(name, "read").inc(prompt_tokens)
        metrics.tokens.labels(name, "written").inc(completion_tokens)
        metrics.cost.labels(name).inc(cost)

    def _left_s(self, kept_s: float) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic() - kept_s)
