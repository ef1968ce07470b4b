"""One question on its way: its time, its conversation, what it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from generation.memory.conversation import ConversationHistory
from generation.protocols import metrics
from generation.protocols.access import Caller
from generation.writers.writer_chain import AnswerOutcome
from nearline import contract as c

# Kept of the caller's time, so that the end of an answer arrives before the deadline does.
_KEPT_S = 0.05


@dataclass(slots=True)
class RequestContext:
    """A question, and what is known of it so far. timeout_s: The caller's; None: no limit.

    condensed: The question as it stands on its own.
    """

    question: c.Question
    collection: str
    caller: Caller
    timeout_s: float | None
    recalled: ConversationHistory = field(default_factory=lambda: ConversationHistory(()))
    condensed: str = ""
    info: c.ReplyInfo | None = None
    _start: float = field(default_factory=time.monotonic)
    _retrieval_s: float = 0.0
    _first_delta_s: float = 0.0

    @property
    def snapshot_id(self) -> str:
        """Snapshot that it is answered from; empty before it was looked for."""
        return self.info.snapshot_id if self.info else ""

    def left_s(self) -> float | None:
        """Returns the seconds that are left for work; None: no limit."""
        if self.timeout_s is None:
            return None
        return max(0.0, self._start + self.timeout_s - _KEPT_S - time.monotonic())

    def found(self, info: c.ReplyInfo) -> None:
        """Takes in that the search is done."""
        self.info = info
        self._retrieval_s = self._spent_s()

    def sends(self, event: c.AnswerEvent, backend: str) -> None:
        """Takes in that an event leaves now."""
        if isinstance(event, c.Delta) and not self._first_delta_s:
            self._first_delta_s = self._spent_s()
            metrics.first_delta_seconds.labels(self.collection, backend).observe(
                self._first_delta_s
            )

    def usage(self, outcome: AnswerOutcome) -> c.Usage:
        """Returns what the answer took."""
        return c.Usage(
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cost=outcome.cost,
            retrieval_s=self._retrieval_s,
            first_delta_s=self._first_delta_s,
            total_s=self._spent_s(),
            attempts=outcome.attempts,
        )

    def _spent_s(self) -> float:
        return time.monotonic() - self._start
