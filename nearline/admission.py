"""Decides which calls a server begins, so that those it begins are answered in time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Literal, TypeAlias

from prometheus_client import Counter as CounterMetric, Gauge

from nearline.contract import Lane
from nearline.errors import DeadlineExceeded, Overloaded

# What a server leaves out while it is overloaded.
Optional: TypeAlias = Literal["monitor", "diversity", "groups", "model"]
EndCall: TypeAlias = Callable[[], None]
_RETRY_AFTER_S: Final = 0.25
# A call is late if it takes this share of the time that its caller gave it: nearly all of it, since
# some calls take long without any overload; half of it once there is one, so that few end too late.
_LATE, _LATE_IN_OVERLOAD = 0.8, 0.5
# The limit falls if more than this share of the calls of a window are late,
_LATE_SHARE: Final = 0.1
# or more than this share of those of one tenant, which are remembered for two seconds: one that
# seldom calls is outvoted by others, whose deadlines may be long.
_LATE_SHARE_OF_TENANT: Final = 0.2
_LEAST_LATE: Final = 1.5
_KEPT_PER_WINDOW: Final = 0.95
# So many calls say how long they take. If no more are begun, that is forgotten within a second.
_LEAST_TIMES, _MOST_TIMES = 3.0, 20.0
_TIMES_KEPT: Final = 0.8
# A deadline as tight as this says nothing about a server.
_LEAST_LATE_S: Final = 0.05
_WINDOW_S: Final = 0.1
_FALL, _RISE = 0.7, 1.05
# While calls are refused it rises more slowly: what it admits too much is late seconds later.
_RISE_IN_USE: Final = 1.01
# Few enough for any machine, and enough for calls that wait for something else.
_LEAST_LIMIT: Final = 16
# So many refusals of a window are told at once. The others are held back for as long as their
# callers are told to wait: a connection has a bounded number of calls, and cannot send more.
_QUICK_REFUSALS: Final = 10
# A tenant has a share of the calls while it called this recently.
_ACTIVE_S: Final = 1.0

_limit_now = Gauge(
    "nearline_server_call_limit", "Calls that may run at once; lower while calls are late."
)
_refused = CounterMetric(
    "nearline_server_refused_calls_total", "Calls refused without being begun, by reason.", ("why",)
)
_left_out = CounterMetric(
    "nearline_server_left_out_total", "Optional work left out under overload, by kind.", ("what",)
)
# Each call runs in a task of its own, and the tasks that it starts inherit this.
_overloaded: ContextVar[bool] = ContextVar("nearline_overloaded", default=False)


def leave_out(what: Optional) -> bool:
    """Returns whether the running call must do without a piece of optional work, and counts it.

    That is so if the server was overloaded when the call began, and its tenant ran much of what it
    may: what others wait for goes first.
    """
    if not _overloaded.get():
        return False
    _left_out.labels(what).inc()
    return True


def note_overload() -> None:
    """Notes that the call that runs now must do without optional work."""
    _overloaded.set(True)


class _RecentCalls:
    """Calls that ended lately, the older the less they count.

    ended: Their number. late: Those of them that were late. spent_s: Seconds that all took.
    just_late: Whether one of this window was late.
    """

    __slots__ = ("ended", "just_late", "late", "spent_s")

    def __init__(self) -> None:
        self.ended = self.late = self.spent_s = 0.0
        self.just_late = False

    @property
    def are_late(self) -> bool:
        """Whether many of them are late."""
        many = self.late >= _LEAST_LATE and self.late > _LATE_SHARE_OF_TENANT * self.ended
        # Else a limit that has fallen enough would fall on until all that is forgotten.
        return self.just_late and many

    def fade(self, kept: float) -> bool:
        """Lets them count less after a window; returns whether they still count."""
        self.just_late = False
        self.ended *= kept
        self.late *= kept
        self.spent_s *= kept
        return self.ended > 0.1


class Admission:
    """Limits how many calls run at once, by whether they are answered in time.

    While calls take nearly all of the time that their callers gave them, fewer are begun, and the
    others are told at once to retry: a call that is begun too late helps nobody. Each tenant that
    calls has an equal share of them, so that one that floods the server cannot keep others out.
    Calls for whose answer nobody waits (the lane bulk) leave half of the room to the others.

    Source: additive and multiplicative steps on a signal of congestion, as in Netflix'
    concurrency-limits; here the signal is the share of late calls.

    Args:
        max_calls: Calls that may run at once, however quick they are.
        clock: Returns seconds.
    """

    def __init__(self, max_calls: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_calls = max_calls
        self._clock = clock
        self._limit = float(max_calls)
        self._running: Counter[tuple[str, Lane]] = Counter()
        self._calls = self._bulk = 0
        self._streams: Counter[str] = Counter()
        self._last_call_s: dict[str, float] = {}
        self._window_end_s = clock() + _WINDOW_S
        self._ended = self._late = self._peak = 0
        self._fell_s = clock()
        self._tenants: dict[str, _RecentCalls] = {}
        # By tenant and method, of calls that ended before their deadline.
        self._times: dict[tuple[str, str], _RecentCalls] = {}
        # Whether a tenant was refused in this window because it has its share.
        self._shared_out = False
        self._refused, self._refused_until_s = 0, clock()
        _limit_now.set(max_calls)

    @property
    def limit(self) -> int:
        """Calls that may run at once now."""
        return int(self._limit)

    @property
    def is_overloaded(self) -> bool:
        """Whether fewer calls may run than the server would run otherwise."""
        return self._limit < self._max_calls

    def is_crowded_by(self, tenant: str) -> bool:
        """Whether the server is overloaded, and a tenant runs half of its share or more.

        Else a single late call, of whomever, would take optional work from everybody for seconds.
        """
        if not self.is_overloaded:
            return False
        running = self._running[tenant, Lane.INTERACTIVE] + self._running[tenant, Lane.BULK]
        return running >= self._share() / 2

    def begin(
        self,
        tenant: str,
        left_s: float | None,
        lane: Lane = Lane.INTERACTIVE,
        method: str = "",
    ) -> EndCall:
        """Begins a call; returns what ends it.

        Args:
            tenant: Tenant of the caller.
            left_s: Seconds until the deadline of the caller; None if it has none.
            lane: Of the calls that may run at once, at most half are of the lane bulk.
            method: Under overload, a call that has less time left than those of its tenant and
                method have taken lately is not begun.
        Raises: Overloaded: too many calls run, or the call would end too late. DeadlineExceeded:
            it would, and its deadline is tight.
        """
        now_s = self._clock()
        if now_s >= self._window_end_s:
            self._adjust(now_s)
        self._last_call_s[tenant] = now_s
        self._check_total()
        if lane is Lane.BULK:
            self._check_bulk()
        if self.is_overloaded:
            self._check_time(tenant, method, left_s)
            self._check_overload(tenant, lane)
        self._running[tenant, lane] += 1
        self._calls += 1
        self._bulk += lane is Lane.BULK
        self._peak = max(self._peak, self._calls)
        return lambda: self._end(tenant, lane, method, now_s, left_s)

    def begin_stream(self, tenant: str) -> EndCall:
        """Begins a stream; returns what ends it.

        A stream may last for hours, and so says nothing about overload. Half of all calls may be
        streams of one tenant.

        Raises: Overloaded: too many calls and streams run.
        """
        self._check_total()
        if self._streams[tenant] >= max(1, self._max_calls // 2):
            _refused.labels("streams").inc()
            raise Overloaded(
                f"{self._streams[tenant]:,} streams of tenant {tenant!r} are open, half of "
                "--max-calls; end some of them, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._streams[tenant] += 1
        return lambda: self._end_stream(tenant)

    def hold_s(self) -> float:
        """Returns the seconds for which to hold back a refusal; counts it.

        Refusing a call costs a tenth of answering it. Callers that repeat it at once could take up
        all of a server that way.
        """
        now_s = self._clock()
        if now_s >= self._refused_until_s:
            self._refused, self._refused_until_s = 0, now_s + _WINDOW_S
        self._refused += 1
        return _RETRY_AFTER_S if self._refused > _QUICK_REFUSALS else 0.0

    def _end(
        self, tenant: str, lane: Lane, method: str, began_s: float, left_s: float | None
    ) -> None:
        spent_s = self._clock() - began_s
        self._calls -= 1
        self._bulk -= lane is Lane.BULK
        self._running[tenant, lane] -= 1
        if not self._running[tenant, lane]:
            del self._running[tenant, lane]
        self._ended += 1
        # Calls that were begun before the limit fell are late for what it was then: of them, only
        # those count that took nearly all of their time.
        mild = self.is_overloaded and began_s >= self._fell_s
        allowed = _LATE_IN_OVERLOAD if mild else _LATE
        is_late = left_s is not None and spent_s >= allowed * left_s
        self._late += is_late
        recent = self._tenants.get(tenant)
        if recent is None:
            recent = self._tenants[tenant] = _RecentCalls()
        recent.ended += 1
        if is_late and spent_s >= _LEAST_LATE_S:
            recent.late += 1
            recent.just_late = True
        if left_s is None or spent_s < left_s:
            times = self._times.get((tenant, method))
            if times is None:
                times = self._times[tenant, method] = _RecentCalls()
            if times.ended > _MOST_TIMES:
                times.fade(_MOST_TIMES / times.ended)
            times.ended += 1
            times.spent_s += spent_s

    def _end_stream(self, tenant: str) -> None:
        self._streams[tenant] -= 1
        if not self._streams[tenant]:
            del self._streams[tenant]

    def _check_total(self) -> None:
        running = self._calls + self._streams.total()
        if running >= self._max_calls:
            _refused.labels("max_calls").inc()
            raise Overloaded(
                f"{running:,} calls are running, and --max-calls is {self._max_calls:,}; retry "
                "later, send fewer calls at once, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _check_bulk(self) -> None:
        most = max(1, self.limit // 2)
        if self._bulk >= most:
            _refused.labels("bulk").inc()
            raise Overloaded(
                f"{self._bulk:,} calls of the lane bulk (writes, pages of items, jobs) are "
                f"running, half of the {self.limit:,} that are answered in time; retry later, "
                "send fewer calls at once, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _share(self) -> float:
        """Returns how many calls each tenant may run under overload."""
        return max(1.0, self._limit / max(1, len(self._last_call_s)))

    def _check_overload(self, tenant: str, lane: Lane) -> None:
        share = self._share()
        running = self._running[tenant, Lane.BULK]
        if lane is Lane.INTERACTIVE:
            # Those that were begun while the limit was higher do not keep a search out.
            running = min(running, int(share / 2))
        running += self._running[tenant, Lane.INTERACTIVE]
        if running >= share:
            self._shared_out = True
            _refused.labels("overload").inc()
            raise Overloaded(
                f"the server is overloaded: {self.limit:,} calls at once are answered in time, and "
                f"{running:,} of tenant {tenant!r} are running; retry later, send "
                "fewer calls at once, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _check_time(self, tenant: str, method: str, left_s: float | None) -> None:
        """Refuses a call that would end too late.

        By the times of its own tenant alone: those of others could be made long to keep it out.
        """
        times = self._times.get((tenant, method))
        if left_s is None or times is None or times.ended < _LEAST_TIMES:
            return
        usual_s = times.spent_s / times.ended
        if left_s >= usual_s:
            return
        _refused.labels("late").inc()
        text = (
            f"the server is overloaded: the call has {left_s * 1e3:.0f} ms left, and takes about "
            f"{usual_s * 1e3:.0f} ms now; retry later, or raise the timeout"
        )
        if left_s < _LEAST_LATE_S:
            # It would end so without any overload.
            raise DeadlineExceeded(text)
        raise Overloaded(text, retry_after_s=_RETRY_AFTER_S)

    def _adjust(self, now_s: float) -> None:
        """Ends a window: lowers the limit if calls were late, else raises it."""
        if self._late > _LATE_SHARE * self._ended or any(
            recent.are_late for recent in self._tenants.values()
        ):
            self._limit = max(_LEAST_LIMIT, _FALL * min(self._limit, self._peak))
            self._fell_s = now_s
        else:
            self._limit = self._limit * (_RISE_IN_USE if self._shared_out else _RISE) + 1
        self._limit = min(self._limit, self._max_calls)
        _limit_now.set(self.limit)
        self._window_end_s = now_s + _WINDOW_S
        self._ended = self._late = 0
        self._shared_out = False
        self._peak = self._calls
        self._tenants = {
            name: one for name, one in self._tenants.items() if one.fade(_KEPT_PER_WINDOW)
        }
        self._times = {name: one for name, one in self._times.items() if one.fade(_TIMES_KEPT)}
        self._last_call_s = {
            tenant: last_s
            for tenant, last_s in self._last_call_s.items()
            if now_s - last_s < _ACTIVE_S
        }
