"""Whether a canary is backed out: every test of a rollout, and what they have seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nearline.errors import InvalidRequest
from retrieval.rollout.arm import ArmCounter, ArmState
from retrieval.rollout.distinct_sampler import CLICK, CONVERSION, ERROR, UNIT, DistinctSampler
from retrieval.rollout.evidence.e_process import evidence_factor
from retrieval.rollout.evidence.mean_test import MeanTest
from retrieval.rollout.evidence.share_test import ShareTest
from retrieval.rollout.latency_test import LatencyTest

# Requests of each arm, on average, before latencies are judged: the first ones find cold caches.
_WARM = 50
_REQUESTS_BETWEEN_LOOKS = 32
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryLimits:
    """What a canary is held to.

    false_alarm: Chance of backing out one that is as good, more than 0 and less than 1, however
    long it is tried. latency_ratio: Latency that it may have, as a multiple of that of the current
    snapshot, >= 1. min_recall: Mean recall@10 that it must have, 0..1; 0: not judged.
    Raises: InvalidRequest.
    """

    false_alarm: float = 0.01
    latency_ratio: float = 1.1
    min_recall: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.false_alarm < 1 and 1 <= self.latency_ratio < math.inf):
            raise InvalidRequest(
                f"a rollout cannot have false_alarm {self.false_alarm:g} and latency_ratio "
                f"{self.latency_ratio:g}; give 0 < false_alarm < 1 and latency_ratio >= 1"
            )
        if not 0 <= self.min_recall <= 1:
            raise InvalidRequest(f"min_recall is {self.min_recall:g}; give 0..1, 0: not judged")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestState:
    """How a test stands.

    evidence: Against the canary, as a factor. limit: Where it backs out. seen: For people.
    """

    # Not for pytest.
    __test__ = False

    name: str
    evidence: float
    limit: float
    seen: str


class _Test(Protocol):
    @property
    def log_evidence(self) -> float: ...


class CanaryAnalysis:
    """Holds a canary to its limits, by what becomes of requests and lists.

    Every test claims an equal part of `limits.false_alarm`, so that is the chance that any of them
    ever backs out a canary that is as good (Bonferroni; each holds however often one looks). All
    but recall take from the dealing alone what is to be expected, see `ShareTest`; so every request
    of either arm must be reported, whatever became of it.

    Where a draw decides for more than one request, each unit counts once for each test, by its
    first event; for latency see `LatencyTest`.

    Nothing here raises, waits, or knows the time; a request costs microseconds.

    Args:
        share: Chance that a request, or a unit, is dealt to the canary, more than 0, less than 1.
        limits: What it is held to.
        dealt_by_unit: Whether several requests may share a draw: of a user, or of a session.
    Raises: InvalidRequest.
    """

    def __init__(self, share: float, limits: CanaryLimits, *, dealt_by_unit: bool) -> None:
        if not 0 < share < 1:
            raise InvalidRequest(f"a canary's share is {share:g}; give more than 0, less than 1")
        self._share = share
        self._limits = limits
        self._current, self._canary = ArmCounter(), ArmCounter()
        self._requests = 0
        self._warm_after = math.ceil(_WARM / min(share, 1 - share))
        self._units = DistinctSampler() if dealt_by_unit else None
        self._lists = DistinctSampler()
        self._latencies = LatencyTest(share, limits.latency_ratio, self._units)
        self._errors = ShareTest(share, "greater")
        self._recall = MeanTest(limits.min_recall) if limits.min_recall > 0 else None
        self._clicks = ShareTest(share, "less")
        self._conversions = ShareTest(share, "less")
        self._sample_ratio = ShareTest(share, "either")
        self._tests: dict[str, tuple[_Test, Callable[[ArmState, ArmState], str]]] = {
            "latency": (self._latencies, _latency_seen),
            "tail_latency": (self._latencies.tail, _tail_seen),
            "errors": (self._errors, _errors_seen),
            "clicks": (self._clicks, _clicks_seen),
            "conversions": (self._conversions, _conversions_seen),
            "sample_ratio": (self._sample_ratio, self._ratio_seen),
        }
        if self._recall is not None:
            self._tests["recall"] = (self._recall, self._recall_seen)
        self._limit = len(self._tests) / limits.false_alarm
        self._log_limit = math.log(self._limit)
        self._broken = ""
        self._breach = ""

    def request(self, canary: bool, unit: int, seconds: float, *, failed: bool) -> None:
        """Takes in a request that was answered, or failed through no fault of the caller.

        Args:
            canary: Which arm it was dealt to.
            unit: 64-bit hash of what it was dealt by; its 20 lowest bits must play no part in
                which arm it was dealt to.
            seconds: That it took, >= 0; not looked at where it failed.
        """
        arm = self._canary if canary else self._current
        arm.requests += 1
        self._requests += 1
        if self._first(unit, UNIT):
            arm.units += 1 if self._units is None else self._units.weight
            self._sample_ratio.event(canary)
        if not failed:
            arm.seconds.append(seconds)
            judged = self._requests > self._warm_after
            self._latencies.add(canary, unit, seconds, judged=judged)
        else:
            arm.errors += 1
            if self._first(unit, ERROR):
                self._errors.event(canary)
        if self._requests % _REQUESTS_BETWEEN_LOOKS == 0:
            self._look()

    def recall(self, canary: bool, value: float) -> None:
        """Takes in the recall@10 of a search that was done again exactly, 0..1."""
        arm = self._canary if canary else self._current
        arm.recall_samples += 1
        arm.recall += value
        if canary and self._recall is not None:
            self._recall.add(value)

    def listed(self, canary: bool) -> None:
        """Takes in that a list with a name was given."""
        (self._canary if canary else self._current).lists += 1

    def clicked(
        self, canary: bool, list_id: str, *, converted: bool, unit: int | None = None
    ) -> None:
        """Takes in that something in a list was clicked, or bought; the first time of each counts.

        Args:
            canary: Which arm gave the list.
            converted: It was bought.
            unit: What the list's request was dealt by, as in `request`; None: the list by itself.
        """
        arm = self._canary if canary else self._current
        purpose = CONVERSION if converted else CLICK
        if not self._lists.first(hash(list_id) & _64_BITS, purpose):
            return
        if converted:
            arm.conversions += self._lists.weight
        else:
            arm.clicks += self._lists.weight
        if unit is None or self._first(unit, purpose):
            (self._conversions if converted else self._clicks).event(canary)

    @property
    def breach(self) -> str:
        """Why the canary must be backed out, a sentence; empty: it need not be."""
        self._look()
        return self._breach

    @property
    def broken(self) -> str:
        """Name of the test that says so; empty: none does."""
        self._look()
        return self._broken

    def tests(self) -> Sequence[TestState]:
        """Returns how each test stands."""
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

    def arms(self) -> tuple[ArmState, ArmState]:
        """Returns what the current snapshot and the canary have seen."""
        return self._current.state(), self._canary.state()

    def _first(self, unit: int, purpose: int) -> bool:
        return self._units is None or self._units.first(unit, purpose)

    def _look(self) -> None:
        if self._breach:
            return
        for name, (test, seen) in self._tests.items():
            log_evidence = test.log_evidence
            if log_evidence >= self._log_limit:
                self._broken = name
                self._breach = (
                    f"{name}: {seen(*self.arms())}; "
                    f"evidence {evidence_factor(log_evidence):.4g} >= {self._limit:.4g}"
                )
                return

    def _recall_seen(self, current: ArmState, canary: ArmState) -> str:
        if not canary.recall_samples:
            return "no search of the canary was done again exactly"
        return (
            f"canary {canary.recall:.3f} in {canary.recall_samples} searches, at least "
            f"{self._limits.min_recall:g} wanted"
        )

    def _ratio_seen(self, current: ArmState, canary: ArmState) -> str:
        seen = canary.units / max(1, canary.units + current.units)
        return f"canary {seen:.2%} of {canary.units + current.units} units, {self._share:.2%} dealt"


def _latency_seen(current: ArmState, canary: ArmState) -> str:
    return f"canary p50 {canary.p50_ms:.1f} ms against {current.p50_ms:.1f} ms"


def _tail_seen(current: ArmState, canary: ArmState) -> str:
    return f"canary p95 {canary.p95_ms:.1f} ms against {current.p95_ms:.1f} ms"


def _errors_seen(current: ArmState, canary: ArmState) -> str:
    return (
        f"canary failed {canary.errors} of {canary.requests} requests against {current.errors} of "
        f"{current.requests}"
    )


def _clicks_seen(current: ArmState, canary: ArmState) -> str:
    return (
        f"canary {canary.clicks} of {canary.lists} lists clicked against {current.clicks} of "
        f"{current.lists}"
    )


def _conversions_seen(current: ArmState, canary: ArmState) -> str:
    return (
        f"canary {canary.conversions} of {canary.lists} lists bought from against "
        f"{current.conversions} of {current.lists}"
    )
