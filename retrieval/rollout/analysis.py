"""Canary analysis: decides by sequential tests whether to back out a canary."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from nearline.errors import InvalidRequest
from nearline.v1 import admin_pb2
from retrieval.protocols.quantiles import RecentQuantiles, quantiles
from retrieval.rollout.distinct_sampler import (
    CLICK,
    CONVERSION,
    ERROR,
    SLOW,
    UNIT,
    DistinctSampler,
)
from retrieval.rollout.evidence import ShareTest, evidence_factor
from retrieval.rollout.rate_comparison import RateComparison, known_tenant

# Mean number of requests per arm before latencies count; the first ones hit cold caches.
_WARM_UP_REQUESTS = 50
_REQUESTS_PER_EVALUATION = 32
_64_BITS = (1 << 64) - 1
_LATEST = 1024
# A request slower than this quantile of recent ones of the current snapshot is slow.
_SLOW = 0.95
# If requests are split by unit, one in this many units sets the threshold, and is not compared with
# it; otherwise a unit would shift its own threshold, in one arm but not in the other.
_UNITS_PER_THRESHOLD_UNIT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmState:
    """State of one arm.

    requests: Requests that have ended.
    errors: Requests that failed through no fault of the caller.
    units: Users, sessions or requests that were assigned.
    p50_ms, p95_ms, p99_ms: Latency percentiles of the latest 1,024 successful requests; 0 without
        any.
    recall_samples, recall: Searches rerun exactly, and their mean recall, 0..1; 0 without any.
    lists, clicks, conversions: Lists returned with an id, and how many of them had a click or a
        conversion.
    """

    requests: int
    errors: int
    units: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    recall_samples: int
    recall: float
    lists: int
    clicks: int
    conversions: int


@dataclass(slots=True)
class ArmCounter:
    """Counts the outcomes of one arm; `recall` is the sum."""

    requests: int = 0
    errors: int = 0
    units: int = 0
    recall_samples: int = 0
    recall: float = 0.0
    lists: int = 0
    clicks: int = 0
    conversions: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def state(self) -> ArmState:
        """Returns the current state."""
        p50, p95, p99 = quantiles(self.seconds or (0.0,), (0.5, 0.95, 0.99))
        return ArmState(
            requests=self.requests,
            errors=self.errors,
            units=self.units,
            p50_ms=p50 * 1e3,
            p95_ms=p95 * 1e3,
            p99_ms=p99 * 1e3,
            recall_samples=self.recall_samples,
            recall=self.recall / self.recall_samples if self.recall_samples else 0.0,
            lists=self.lists,
            clicks=self.clicks,
            conversions=self.conversions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryLimits:
    """Limits that a canary must meet.

    false_alarm: Probability of backing out a canary that is as good as the current snapshot,
        however long the trial runs; more than 0 and less than 1.
    latency_ratio: Allowed latency as a multiple of the latency of the current snapshot, >= 1.
    min_recall: Required mean recall@10, 0..1; 0 disables the test.
    min_effect: Relative change of a rate that the stated number of lists finds, > 0.
    Raises: InvalidRequest: A limit is out of range.
    """

    false_alarm: float = 0.01
    latency_ratio: float = 1.1
    min_recall: float = 0.0
    min_effect: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.false_alarm < 1 and 1 <= self.latency_ratio < math.inf):
            raise InvalidRequest(
                f"a rollout has false_alarm {self.false_alarm:g} and latency_ratio "
                f"{self.latency_ratio:g}; 0 < false_alarm < 1 and latency_ratio >= 1 are required"
            )
        if not 0 <= self.min_recall <= 1:
            raise InvalidRequest(
                f"min_recall is {self.min_recall:g}; 0..1 is allowed, 0 disables it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TestState:
    """State of a test.

    evidence: Evidence against the canary, as a factor.
    limit: Evidence at which the canary is backed out.
    seen: Observations in words.
    """

    # Not for pytest.
    __test__ = False

    name: str
    evidence: float
    limit: float
    seen: str


class _SequentialTest(Protocol):
    @property
    def log_evidence(self) -> float: ...


class CanaryAnalysis:
    """Tests a canary against its limits by the outcomes of requests and lists.

    Every test gets an equal part of `limits.false_alarm`, which is therefore the probability that
    any of them ever backs out a canary that is as good (Bonferroni; each test stays valid however
    often it is evaluated). All tests but recall derive their expectation from the traffic split
    alone, see `ShareTest`. So every assignment and every outcome of either arm must be recorded. An
    assignment is recorded before its request is answered: a canary that takes long at first has not
    been assigned less.

    If one draw assigns several requests, each unit counts once per test, with its first event; for
    clicks and conversions see `RateComparison`.

    No method raises, blocks or reads the clock; recording a request takes microseconds.

    Args:
        share: Probability that a request or a unit is assigned to the canary, more than 0 and less
            than 1.
        limits: Limits of the canary.
        dealt_by_unit: Whether several requests may share a draw: those of a user or a session.
    Raises: InvalidRequest: The share is out of range.
    """

    def __init__(self, share: float, limits: CanaryLimits, *, dealt_by_unit: bool) -> None:
        if not 0 < share < 1:
            raise InvalidRequest(
                f"the share of a canary is {share:g}; more than 0 and less than 1 is required"
            )
        self._share = share
        self._limits = limits
        self._current, self._canary = ArmCounter(), ArmCounter()
        self._requests = 0
        self._warm_after = math.ceil(_WARM_UP_REQUESTS / min(share, 1 - share))
        self._units = DistinctSampler() if dealt_by_unit else None
        self._lists = DistinctSampler()
        self._slow = ShareTest(share, "greater")
        self._slow_s = RecentQuantiles((_SLOW,))
        self._errors = ShareTest(share, "greater")
        self._recall = ShareTest(limits.min_recall, "less") if limits.min_recall > 0 else None
        self._tenants: Counter[str] = Counter()
        self._clicks = RateComparison(share, limits.min_effect, self._tenants)
        self._conversions = RateComparison(share, limits.min_effect, self._tenants)
        self._sample_ratio = ShareTest(share, "either")
        self._tests: dict[str, tuple[_SequentialTest, Callable[[ArmState, ArmState], str]]] = {
            "latency": (self._slow, _latency_seen),
            "errors": (self._errors, _errors_seen),
            "clicks": (self._clicks, partial(_rate_seen, "clicks")),
            "conversions": (self._conversions, partial(_rate_seen, "conversions")),
            "sample_ratio": (self._sample_ratio, self._ratio_seen),
        }
        if self._recall is not None:
            self._tests["recall"] = (self._recall, self._recall_seen)
        self._limit = len(self._tests) / limits.false_alarm
        self._log_limit = math.log(self._limit)
        self._breached_test = ""
        self._breach = ""

    def record_assignment(self, canary: bool, unit: int, tenant: str = "") -> None:
        """Records that a request was assigned.

        Args:
            canary: Whether it was assigned to the canary.
            unit: 64-bit hash of the unit; its 20 lowest bits must not influence the assignment.
            tenant: Tenant of the user or session; empty if the request names neither.
        """
        if tenant:
            self._tenants[known_tenant(tenant, self._tenants)] += 1
        if self._counts(unit, UNIT):
            arm = self._canary if canary else self._current
            arm.units += 1 if self._units is None else self._units.weight
            self._sample_ratio.add(canary)

    def record_outcome(self, canary: bool, unit: int, seconds: float, *, failed: bool) -> None:
        """Records how a request ended, unless it failed through a fault of the caller.

        One that its caller gave up counts as slow as it was until then.

        Args:
            canary, unit: As in `record_assignment`.
            seconds: Duration, >= 0; ignored for a failed request.
            failed: Whether the request failed.
        """
        arm = self._canary if canary else self._current
        arm.requests += 1
        self._requests += 1
        if not failed:
            arm.seconds.append(seconds)
            self._add_latency(canary, unit, seconds)
        else:
            arm.errors += 1
            if self._counts(unit, ERROR):
                self._errors.add(canary)
        if self._requests % _REQUESTS_PER_EVALUATION == 0:
            self._evaluate()

    def record_recall(self, canary: bool, value: float) -> None:
        """Records the recall@10 of a search that was rerun exactly, 0..1."""
        arm = self._canary if canary else self._current
        arm.recall_samples += 1
        arm.recall += value
        if canary and self._recall is not None:
            self._recall.add(value)

    def record_list(self, canary: bool) -> None:
        """Records a list that was returned with an id."""
        (self._canary if canary else self._current).lists += 1

    def record_click(
        self, canary: bool, list_id: str, user: int, tenant: str = "", *, converted: bool
    ) -> None:
        """Records a click or a conversion in a list; only the first of each counts.

        Args:
            canary: Whether the list came from the canary.
            list_id: Id of the list.
            user: 64-bit hash of the user, or else of the session, whatever the requests' unit is.
            tenant: Tenant of the user.
            converted: Whether it was a conversion, such as a purchase.
        """
        arm = self._canary if canary else self._current
        purpose = CONVERSION if converted else CLICK
        if not self._lists.first(hash(list_id) & _64_BITS, purpose):
            return
        if converted:
            arm.conversions += self._lists.weight
        else:
            arm.clicks += self._lists.weight
        (self._conversions if converted else self._clicks).add(canary, user, tenant)

    @property
    def breach(self) -> str:
        """Why the canary must be backed out, as a sentence; empty if it meets its limits."""
        self._evaluate()
        return self._breach

    @property
    def breached_test(self) -> str:
        """Name of the test that backs out the canary; empty if none does."""
        self._evaluate()
        return self._breached_test

    def tests(self) -> Sequence[TestState]:
        """Returns the state of each test."""
        current, canary = self.arms()
        return [
            TestState(
                name=name,
                evidence=evidence_factor(test.log_evidence),
                limit=self._limit,
                seen=seen(current, canary),
            )
            for name, (test, seen) in self._tests.items()
        ]

    def verdicts(self) -> Sequence[admin_pb2.RateVerdict]:
        """Returns how the arms compare by clicks and by conversions."""
        lists = self._current.lists + self._canary.lists
        rates = {"clicks": self._clicks, "conversions": self._conversions}
        return [comparison.verdict(rate, lists) for rate, comparison in rates.items()]

    def arms(self) -> tuple[ArmState, ArmState]:
        """Returns the states of the current snapshot and of the canary."""
        return self._current.state(), self._canary.state()

    def _add_latency(self, canary: bool, unit: int, seconds: float) -> None:
        sets = self._units is None or unit % _UNITS_PER_THRESHOLD_UNIT == 0
        judged = self._requests > self._warm_after and not (sets and self._units is not None)
        if judged and self._slow_s.values:
            allowed_s = self._slow_s.values[0] * (self._limits.latency_ratio if canary else 1.0)
            if seconds > allowed_s and self._counts(unit, SLOW):
                self._slow.add(canary)
        if sets and not canary:
            self._slow_s.observe(seconds)

    def _counts(self, unit: int, purpose: int) -> bool:
        return self._units is None or self._units.first(unit, purpose)

    def _evaluate(self) -> None:
        if self._breach:
            return
        for name, (test, seen) in self._tests.items():
            log_evidence = test.log_evidence
            if log_evidence >= self._log_limit:
                self._breached_test = name
                self._breach = (
                    f"{name}: {seen(*self.arms())}; "
                    f"evidence {evidence_factor(log_evidence):.4g} >= {self._limit:.4g}"
                )
                return

    def _recall_seen(self, current: ArmState, canary: ArmState) -> str:
        if not canary.recall_samples:
            return "no search of the canary was rerun exactly"
        return (
            f"canary {canary.recall:.3f} in {canary.recall_samples} searches, at least "
            f"{self._limits.min_recall:g} required"
        )

    def _ratio_seen(self, current: ArmState, canary: ArmState) -> str:
        seen = canary.units / max(1, canary.units + current.units)
        return (
            f"canary {seen:.2%} of {canary.units + current.units} units, assigned {self._share:.2%}"
        )


def _latency_seen(current: ArmState, canary: ArmState) -> str:
    return f"canary p95 {canary.p95_ms:.1f} ms against {current.p95_ms:.1f} ms"


def _errors_seen(current: ArmState, canary: ArmState) -> str:
    return (
        f"canary failed {canary.errors} of {canary.requests} requests against {current.errors} of "
        f"{current.requests}"
    )


def _rate_seen(name: str, current: ArmState, canary: ArmState) -> str:
    return (
        f"canary {getattr(canary, name)} {name} of {canary.lists} lists against "
        f"{getattr(current, name)} of {current.lists}"
    )
