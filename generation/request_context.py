"""The state of one request: its deadline, its conversation, its usage."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from generation.memory.conversation import ConversationHistory
from generation.protocols import metrics
from generation.writers.writer_chain import AnswerOutcome
from nearline import contract as c
from nearline.access.caller import Caller

# Reserved from the caller's time, so that the end of an answer arrives before the deadline.
_KEPT_S = 0.05


@dataclass(slots=True)
class RequestContext:
    """A question, and what is known about it so far.

    timeout_s: The caller's timeout; None if there is no limit.

    condensed: The question, completed from the conversation. calibrated: Whether its calibration
    was learned from labels of the collection itself.
    """

    question: c.Question
    collection: str
    caller: Caller
    timeout_s: float | None
    recalled: ConversationHistory = field(default_factory=lambda: ConversationHistory(()))
    condensed: str = ""
    calibrated: bool = False
    info: c.ReplyInfo | None = None
    _start: float = field(default_factory=time.monotonic)
    _retrieval_s: float = 0.0
    _first_delta_s: float = 0.0

    @property
    def snapshot_id(self) -> str:
        """The snapshot that answers; empty before the search."""
        return self.info.snapshot_id if self.info else ""

    def left_s(self) -> float | None:
        """Returns the remaining seconds; None if there is no limit."""
        if self.timeout_s is None:
            return None
        return max(0.0, self._start + self.timeout_s - _KEPT_S - time.monotonic())

    def found(self, info: c.ReplyInfo) -> None:
        """Records that the search has finished."""
        self.info = info
        self._retrieval_s = self._spent_s()

    def sends(self, event: c.AnswerEvent, backend: str) -> None:
        """Records that an event is sent now."""
        if isinstance(event, c.Delta) and not self._first_delta_s:
            self._first_delta_s = self._spent_s()
            metrics.first_delta_seconds.labels(self.collection, backend).observe(
                self._first_delta_s
            )

    def usage(self, outcome: AnswerOutcome) -> c.Usage:
        """Returns the usage of the answer."""
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
