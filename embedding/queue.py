"""The queue of the batcher: two lanes, and the rule that selects the next batch.

It starts no threads and reads no clock. The batcher guards it with a lock.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from embedding.backend import round_up
from nearline.contract import Lane
from nearline.counts import add_to

# A window of this many budgets is sorted by length: enough to fill batches with little padding.
_WINDOW_BUDGETS = 8
# Under continuous interactive load, bulk still gets this share of the tokens.
_BULK_SHARE = 0.1
# A job without a deadline, or with a distant one, counts as due this long after the earlier ones of
# its tenant would be done, so that a stream of urgent jobs cannot starve it.
PATIENCE_S = 30.0
INTERACTIVE_MEMORY_S = 1.0
BULK_CUT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How batches are cut; all in tokens.

    budget: Padded tokens of one batch.
    bulk_budget: The same for bulk while queries arrive, which wait for a batch to end.
    fixed_cost: Cost of any batch. On a CPU, it was measured: batches of 256 padded tokens reach
        0.86 of the rate of 1,024.
    """

    budget: int
    bulk_budget: int = BULK_CUT_TOKENS
    fixed_cost: int = 50

    @classmethod
    def for_gpu(cls, budget: int) -> BatchLimits:
        """Returns limits for a GPU, whose batches cost milliseconds; assumed, not measured yet."""
        return cls(budget, bulk_budget=budget // 2, fixed_cost=budget // 8)


class EntryState(Enum):
    """The state of an entry."""

    WAITING = auto()
    RUNNING = auto()
    RETRYING = auto()  # In half of a batch that failed.
    DROPPED = auto()


class DropReason(Enum):
    """Why an entry left the queue without having run."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class QueueEntry:
    """One item of a job (a text, or a pair of texts): its row, and its length in tokens."""

    item: Sized
    length: int
    job: InferenceJob
    row: int
    number: int = 0
    state: EntryState = EntryState.WAITING

    @property
    def urgency(self) -> tuple[float, int]:
        """Sorts entries by when they are due, then by arrival."""
        return self.job.due, self.number


@dataclass(slots=True, eq=False)
class InferenceJob:
    """The items of one request, which wait together and finish together.

    deadline: Time of the queue's clock; infinite if the caller set none. due: Time by which it is
    ordered: its deadline, or earlier; see PATIENCE_S.
    rows: (n, width) float32, the model's output for each item, filled batch by batch.
    fallback_reason: Why the CPU stood in for a GPU in one of its batches; empty if in none.
    """

    lane: Lane
    deadline: float
    rows: NDArray[np.float32]
    tenant: str = ""
    entries: list[QueueEntry] = field(default_factory=list)
    tokens: int = 0
    pending: int = 0
    pushed_at: float = 0.0
    due: float = math.inf
    started_at: float | None = None
    fallback_reason: str = ""

    @classmethod
    def of(
        cls, items: Sequence[Sized], lane: Lane, deadline: float, width: int, tenant: str = ""
    ) -> InferenceJob:
        """Makes a job; the len of an item is its tokens."""
        job = cls(lane, deadline, np.empty((len(items), width), np.float32), tenant)
        job.entries = [QueueEntry(item, len(item), job, row) for row, item in enumerate(items)]
        job.tokens = sum(entry.length for entry in job.entries)
        job.pending = len(items)
        return job


@dataclass(slots=True, eq=False)
class Batch:
    """Entries to run together."""

    lane: Lane
    entries: list[QueueEntry]

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return sum(entry.length for entry in self.entries)


@dataclass(slots=True)
class QueuePoll:
    """The result of polling the queue: an optional batch, and the expired jobs."""

    batch: Batch | None
    expired: list[InferenceJob]


class _LaneQueue:
    """One lane: entries wait in order of urgency; the first of them are kept sorted by length."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.tokens = 0
        # Those of each tenant, and of each job.
        self.of_tenant: Counter[str] = Counter()
        self.of_job: Counter[InferenceJob] = Counter()
        # A heap.
        self._backlog: list[tuple[float, int, QueueEntry]] = []
        self._window: list[QueueEntry] = []
        self._window_tokens = 0

    def push(self, entries: Sequence[QueueEntry]) -> None:
        for entry in entries:
            heappush(self._backlog, (*entry.urgency, entry))

    def count(self, job: InferenceJob, tokens: int) -> None:
        """Counts tokens of a job that wait; negative ones wait no longer."""
        self.tokens += tokens
        add_to(self.of_tenant, job.tenant, tokens)
        add_to(self.of_job, job, tokens)

    def refill(self, window_tokens: int, now: float) -> list[InferenceJob]:
        """Removes dead entries, fills the window, and returns the expired jobs."""
        expired = {e.job: None for e in self._window if _waits(e) and e.job.deadline <= now}
        self._window = [e for e in self._window if _waits(e) and e.job not in expired]
        self._window_tokens = sum(e.length for e in self._window)
        due = min((e.job.due for e in self._window), default=math.inf)
        while self._backlog:
            head, full = self._backlog[0][0], self._window_tokens >= window_tokens
            # An entry that is due before all others goes into a full window, too, and others of its
            # job go with it, up to twice the size.
            more = head < due or (head == due and self._window_tokens < 2 * window_tokens)
            if full and not more:
                break
            entry = heappop(self._backlog)[-1]
            if not _waits(entry) or entry.job in expired:
                continue
            if entry.job.deadline <= now:
                expired[entry.job] = None
                continue
            insort(self._window, entry, key=_by_length)
            due = min(due, entry.job.due)
            self._window_tokens += entry.length
        return list(expired)

    def __bool__(self) -> bool:
        return bool(self._window)

    def cut(self, budget: int, max_texts: int, pad_multiple: int, fixed_cost: int) -> Batch:
        """Returns the run with the most tokens per unit of cost that has the most urgent entry."""
        window = self._window
        lengths = [round_up(entry.length, pad_multiple) for entry in window]
        sums = [0, *accumulate(entry.length for entry in window)]
        first_due = min(range(len(window)), key=lambda at: window[at].urgency)
        start, end, best = first_due, first_due + 1, 0.0
        for last in range(first_due, len(window)):
            width = max(1, min(budget // lengths[last], max_texts))
            first = max(0, last + 1 - width)
            if first > first_due:
                break
            cost = lengths[last] * (last + 1 - first) + fixed_cost
            done = (sums[last + 1] - sums[first]) / cost
            if done > best:
                start, end, best = first, last + 1, done
        taken = window[start:end]
        del window[start:end]
        self._window_tokens -= sums[end] - sums[start]
        return Batch(self.lane, taken)


class BatchQueue:
    """The queue with both lanes.

    limits: How batches are cut; may be replaced at any time. tokens_per_s: The same, of the rate of
    the model; 0 if unknown.

    Args:
        budget: Padded tokens of one batch.
        max_texts: Maximum texts of a batch.
        pad_multiple: Multiple to which the backend pads lengths.
    """

    def __init__(self, budget: int, max_texts: int = 1024, pad_multiple: int = 1) -> None:
        self.drops: Counter[tuple[Lane, DropReason]] = Counter()
        self.limits = BatchLimits(budget)
        self.tokens_per_s = 0.0
        self._max_texts = max_texts
        self._pad_multiple = pad_multiple
        self._queues = {lane: _LaneQueue(lane) for lane in Lane}
        self._halves: deque[Batch] = deque()
        self._numbers = 0
        self._interactive_seen = float("-inf")
        self._owed_to_bulk = 0.0

    def tokens(self, lane: Lane, tenant: str | None = None) -> int:
        """Returns the tokens that wait in a lane: all, or those of a tenant."""
        queue = self._queues[lane]
        return queue.tokens if tenant is None else queue.of_tenant[tenant]

    def ahead(self, lane: Lane, tenant: str, tokens: int, deadline: float, now: float) -> int:
        """Returns the tokens that run before a new job of a tenant is done, without its own.

        Those of its tenant count twice: each leaves as much time to others as it takes.
        """
        due = self._due(lane, tenant, deadline, now)
        ahead = sum(
            2 * waiting if job.tenant == tenant else waiting
            for job, waiting in self._queues[lane].of_job.items()
            if job.due <= due
        )
        if lane is Lane.BULK:
            ahead += min(self.tokens(Lane.INTERACTIVE), int((ahead + tokens) / _BULK_SHARE))
        return ahead

    def _due(self, lane: Lane, tenant: str, deadline: float, now: float) -> float:
        waiting = self.tokens(lane, tenant)
        backlog_s = waiting / self.tokens_per_s if self.tokens_per_s else 0.0
        return min(deadline, now + PATIENCE_S + backlog_s)

    def push(self, job: InferenceJob, now: float) -> None:
        """Puts the texts of a job into its lane, behind those that are due earlier."""
        job.pushed_at = now
        job.due = self._due(job.lane, job.tenant, job.deadline, now)
        for entry in job.entries:
            entry.number = self._numbers
            self._numbers += 1
        if job.lane is Lane.INTERACTIVE:
            self._interactive_seen = now
        queue = self._queues[job.lane]
        queue.push(job.entries)
        queue.count(job, job.tokens)

    def drop(self, job: InferenceJob, reason: DropReason) -> None:
        """Removes the waiting entries of a job; running ones are not stopped, but not retried."""
        for entry in job.entries:
            if entry.state in (EntryState.WAITING, EntryState.RETRYING):
                self._queues[job.lane].count(job, -entry.length)
                self.drops[job.lane, reason] += 1
            entry.state = EntryState.DROPPED

    def take(self, now: float) -> QueuePoll:
        """Returns the next batch to run."""
        window = _WINDOW_BUDGETS * self.limits.budget
        expired = [job for q in self._queues.values() for job in q.refill(window, now)]
        for job in expired:
            self.drop(job, DropReason.EXPIRED)
        batch = self._next_half() or self._next_cut(now)
        if batch is not None:
            for entry in batch.entries:
                entry.state = EntryState.RUNNING
                self._queues[batch.lane].count(entry.job, -entry.length)
                if entry.job.started_at is None:
                    entry.job.started_at = now
        return QueuePoll(batch, expired)

    def split(self, batch: Batch) -> None:
        """Puts a failed batch back as two halves, which run before everything else."""
        middle = len(batch.entries) // 2
        for entries in (batch.entries[middle:], batch.entries[:middle]):
            for entry in entries:
                if entry.state is EntryState.RUNNING:
                    entry.state = EntryState.RETRYING
                    self._queues[batch.lane].count(entry.job, entry.length)
            self._halves.appendleft(Batch(batch.lane, entries))

    def _next_half(self) -> Batch | None:
        while self._halves:
            batch = self._halves.popleft()
            batch.entries = [e for e in batch.entries if e.state is EntryState.RETRYING]
            if batch.entries:
                return batch
        return None

    def _next_cut(self, now: float) -> Batch | None:
        interactive, bulk = self._queues[Lane.INTERACTIVE], self._queues[Lane.BULK]
        recently = now - self._interactive_seen < INTERACTIVE_MEMORY_S
        budget, cost = self.limits.budget, self.limits.fixed_cost
        bulk_budget = min(budget, self.limits.bulk_budget) if recently else budget
        if not bulk:
            self._owed_to_bulk = 0.0
        if interactive and self._owed_to_bulk < bulk_budget:
            batch = interactive.cut(budget, self._max_texts, self._pad_multiple, cost)
            if bulk:
                self._owed_to_bulk += _BULK_SHARE * batch.tokens
            return batch
        if bulk:
            batch = bulk.cut(bulk_budget, self._max_texts, self._pad_multiple, cost)
            self._owed_to_bulk = max(0.0, self._owed_to_bulk - bulk_budget)
            return batch
        return None


def _waits(entry: QueueEntry) -> bool:
    return entry.state is EntryState.WAITING


def _by_length(entry: QueueEntry) -> tuple[int, int]:
    return entry.length, entry.number
