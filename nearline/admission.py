"""Decides which calls a server begins, and in which order, so that they are answered in time."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Literal, NamedTuple, TypeAlias

from prometheus_client import Counter as CounterMetric, Gauge, Histogram

from nearline.contract import Lane
from nearline.counts import add_to
from nearline.errors import Overloaded
from nearline.wait_times import WAITS, WaitTimes

# So many turns say when one more call would have its own.
_MOST_TURNS: Final = 128


class TurnRate:
    """Rate at which waiting calls have their turn; its older half is forgotten now and then."""

    __slots__ = ("_since_s", "_turns")

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._turns = 0.0

    def each_s(self, now_s: float) -> float:
        """Returns the seconds from one turn to the next, lately."""
        return (now_s - self._since_s) / max(1.0, self._turns)

    def note(self, now_s: float) -> None:
        """Notes a turn."""
        self._turns += 1
        if self._turns >= _MOST_TURNS:
            self._turns /= 2
            self._since_s += (now_s - self._since_s) / 2


class CallQueue:
    """Calls that wait for their turn, the oldest first.

    rate: Of their turns. passed: Of the lane bulk: turns that other calls of the tenant had since
    its own last one.
    """

    __slots__ = ("calls", "passed", "rate")

    def __init__(self, now_s: float) -> None:
        self.calls: deque[Future[None]] = deque()
        self.rate = TurnRate(now_s)
        self.passed = 0


# What a server leaves out while it is overloaded.
Optional: TypeAlias = Literal["monitor", "diversity", "groups", "rerank", "model"]
EndCall: TypeAlias = Callable[[], None]
_RETRY_AFTER_S: Final = 0.25
# A call is refused if it would wait for more than this share of the time that its caller gave it:
# the rest is for its work. If it would wait for this share, it does without optional work.
_WAIT_SHARE, _CROWDED_SHARE = 0.5, 0.25
# Fewer calls run if, in a window, none of those that run waited less than this for a thread.
_MOST_WAIT_S: Final = 0.05
_WINDOW_S: Final = 0.1
# A wait says so for as long, but not for more: no other work may have its turn meanwhile.
_MOST_NEWS_S: Final = 5.0
_FALL, _RISE = 0.8, 1.05
# Enough to keep a processor and its batches busy. If work waits for longer than that even so, each
# call takes long: then fewer do.
_LEAST_LIMIT: Final = 16
_LONG_WAIT_S, _LEAST_LONG = 0.1, 4
# Calls of the lane bulk may take this part of the room. Up to that one, they have their turn as
# others do; beyond it, after so many of their tenant.
_BULK_PART, _BULK_TURNS = 2, 8
# Streams of one tenant may take this part of all calls. Each of the lane bulk may hold a request of
# --max-message-bytes.
_STREAM_PARTS: Final = {Lane.INTERACTIVE: 2, Lane.BULK: 32}
# So many refusals of a window are told at once. The others are held back for as long as their
# callers are told to wait: a connection has a bounded number of calls, and cannot send more.
_QUICK_REFUSALS: Final = 10

# Replies of one tenant that its clients have not taken; each counts at least as what gRPC keeps.
_MOST_UNREAD_BYTES: Final = 256 << 20
_LEAST_REPLY_BYTES: Final = 1 << 14

_limit_now = Gauge(
    "nearline_server_call_limit", "Calls that may run at once; lower while work waits for threads."
)
_running_now = Gauge(
    "nearline_server_running_calls", "Calls and streams that run, without those that wait."
)
_waiting_now = Gauge("nearline_server_waiting_calls", "Calls that wait for their turn.")
_turn_seconds = Histogram(
    "nearline_server_turn_seconds",
    "Time that a call waited for its turn; calls that need not wait are left out.",
    buckets=(0.001, 0.004, 0.016, 0.064, 0.256, 1, 4, 16),
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

    That is so if it had to wait for much of its time: what others wait for goes first.
    """
    if not _overloaded.get():
        return False
    _left_out.labels(what).inc()
    return True


def note_overload() -> None:
    """Notes that the call that runs now must do without optional work."""
    _overloaded.set(True)


class _Party(NamedTuple):
    """Whose calls wait in one queue."""

    tenant: str
    lane: Lane


class Admission:
    """Lets as many calls run at once as the server has threads for; the others take turns.

    While work waits for threads, fewer calls run. Those that wait have their turn by tenant: next
    is the tenant with the fewest calls running, so one that floods the server delays only itself.
    A call that would wait too long for its deadline is refused at once, and told to retry.
    Calls for whose answer nobody waits (the lane bulk) leave half of the room to the others.

    Source: the signal, that even the quickest of a window waited too long, is that of CoDel
    (RFC 8289); turns by fewest running calls are max-min fairness.

    Args:
        max_calls: Calls that may run and wait at once, however quick they are.
        clock: Returns seconds.
        waits: How long work waits.
    """

    def __init__(
        self,
        max_calls: int,
        clock: Callable[[], float] = time.monotonic,
        waits: WaitTimes = WAITS,
    ) -> None:
        self._max_calls = max_calls
        self._clock = clock
        self._waits = waits
        self._limit = float(max_calls)
        # By tenant, of all lanes and of bulk.
        self._running: Counter[str] = Counter()
        self._running_bulk: Counter[str] = Counter()
        self._calls = self._bulk = self._peak = 0
        # The one whose last turn was longest ago comes first.
        self._queues: dict[_Party, CallQueue] = {}
        self._waiting = 0
        self._watching = False
        # Of all turns, since calls wait.
        self._rate = TurnRate(clock())
        self._streams: Counter[_Party] = Counter()
        self._unread: Counter[str] = Counter()
        self._refused, self._refused_until_s = 0, clock()
        self._window_end_s = clock() + _WINDOW_S
        self._rises_s = 0.0
        # Read when they are scraped: a queue that empties while no call begins is empty, too.
        _limit_now.set_function(lambda: self.limit)
        _running_now.set_function(lambda: self._calls + self._streams.total())
        _waiting_now.set_function(lambda: self._waiting)

    @property
    def limit(self) -> int:
        """Calls that may run at once now."""
        return int(self._limit)

    async def begin(
        self, tenant: str, left_s: float | None, lane: Lane = Lane.INTERACTIVE
    ) -> EndCall:
        """Begins a call when it has its turn; returns what ends it.

        Args:
            tenant: Tenant of the caller.
            left_s: Seconds until the deadline of the caller; None if it has none.
            lane: Of the calls that may run at once, at most half are of the lane bulk.
        Raises: Overloaded: it would wait too long, too many calls run and wait, or the clients of
            the tenant do not read their replies.
        """
        self._check_unread(tenant)
        now_s = self._clock()
        party = _Party(tenant, lane)
        if now_s >= self._window_end_s:
            self._adjust(now_s)
        if self._is_full():
            self._make_room(party)
        if self._queues or not self._has_room(lane):
            await self._wait(party, now_s, left_s)
        else:
            self._start(party)
        return lambda: self._end(party)

    def begin_stream(self, tenant: str, lane: Lane = Lane.INTERACTIVE) -> EndCall:
        """Begins a stream; returns what ends it.

        A stream may last for hours, so none waits for its turn.

        Args:
            lane: Bulk for streams of requests, each of which may be large.
        Raises: Overloaded: too many calls and streams run, or replies are not read; see `begin`.
        """
        self._check_unread(tenant)
        party = _Party(tenant, lane)
        if self._is_full():
            self._make_room(party)
        part = _STREAM_PARTS[lane]
        if (count := self._streams[party]) >= max(1, self._max_calls // part):
            _refused.labels("streams").inc()
            raise Overloaded(
                f"{count:,} streams of tenant {tenant!r} are open in the lane {lane.value}, which "
                f"may be 1/{part} of --max-calls; end some of them, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._streams[party] += 1
        return lambda: add_to(self._streams, party, -1)

    def hold_reply(self, tenant: str, size: int) -> EndCall:
        """Counts a reply that a tenant has not taken yet; returns what to call once it has.

        Not as a running call: what waits for a client keeps no thread busy, and those of others
        would wait for it, too.

        Args:
            size: In bytes.
        """
        size = max(size, _LEAST_REPLY_BYTES)
        self._unread[tenant] += size
        return lambda: add_to(self._unread, tenant, -size)

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

    def _check_unread(self, tenant: str) -> None:
        if (unread := self._unread.get(tenant, 0)) >= _MOST_UNREAD_BYTES:
            _refused.labels("unread").inc()
            raise Overloaded(
                f"clients of tenant {tenant!r} have not read {unread:,} bytes of replies, and "
                f"{_MOST_UNREAD_BYTES:,} are kept; read them, give calls a timeout, or close the "
                "connections that are not read",
                retry_after_s=_RETRY_AFTER_S,
            )

    async def _wait(self, party: _Party, now_s: float, left_s: float | None) -> None:
        """Waits for the turn of a call, and starts it."""
        if not self._queues:
            self._rate = TurnRate(now_s)
        queue = self._queues.get(party) or CallQueue(now_s)
        wait_s = self._expected_wait_s(queue, now_s)
        if left_s is not None and wait_s > _WAIT_SHARE * left_s:
            _refused.labels("overload").inc()
            raise Overloaded(
                f"the server is overloaded: {self._waiting:,} calls wait for their turn, "
                f"{len(queue.calls):,} of tenant {party.tenant!r}, and one more would wait for "
                f"about {wait_s * 1e3:,.0f} of the {left_s * 1e3:,.0f} ms that it has; retry "
                "later, send fewer calls at once, raise the timeout, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )
        if left_s is not None and wait_s > _CROWDED_SHARE * left_s:
            note_overload()
        turn: Future[None] = asyncio.get_running_loop().create_future()
        queue.calls.append(turn)
        self._queues.setdefault(party, queue)
        self._waiting += 1
        # Another queue may wait for room that this one does not need.
        self._give_turns(now_s)
        self._watch_later()
        try:
            await turn
            _turn_seconds.observe(self._clock() - now_s)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # Its turn came while its caller gave up.
                self._end(party)
            else:
                self._forget(party, turn)
            raise

    def _expected_wait_s(self, queue: CallQueue, now_s: float) -> float:
        """Returns the seconds that one more call of a queue would wait, by the turns lately.

        By those of its own queue, which may be too new to say, and by those of all: each other
        queue may have as many turns meanwhile.
        """
        place = len(queue.calls) + 1
        before = min(self._waiting, place * len(self._queues))
        return max(place * queue.rate.each_s(now_s), (before + 1) * self._rate.each_s(now_s))

    def _is_full(self) -> bool:
        return self._calls + self._waiting + self._streams.total() >= self._max_calls

    def _has_room(self, lane: Lane) -> bool:
        if self._calls >= self.limit:
            return False
        return lane is Lane.INTERACTIVE or not self._bulk_fills(_BULK_PART)

    def _bulk_fills(self, part: int) -> bool:
        """Returns whether as many calls as this part of the limit are of the lane bulk."""
        return self._bulk >= max(1, self.limit // part)

    def _start(self, party: _Party) -> None:
        self._running[party.tenant] += 1
        self._calls += 1
        if party.lane is Lane.BULK:
            self._running_bulk[party.tenant] += 1
            self._bulk += 1
        self._peak = max(self._peak, self._calls)

    def _end(self, party: _Party) -> None:
        self._calls -= 1
        add_to(self._running, party.tenant, -1)
        if party.lane is Lane.BULK:
            self._bulk -= 1
            add_to(self._running_bulk, party.tenant, -1)
        if self._queues:
            self._give_turns(self._clock())

    def _give_turns(self, now_s: float) -> None:
        """Starts calls that wait, while there is room."""
        while (party := self._next()) is not None:
            queue = self._queues.pop(party)
            turn = queue.calls.popleft()
            self._waiting -= 1
            if queue.calls:
                self._queues[party] = queue
            # A caller may have given up just now.
            if turn.done():
                continue
            queue.passed = 0
            queue.rate.note(now_s)
            self._rate.note(now_s)
            if party.lane is Lane.INTERACTIVE:
                bulk = self._queues.get(_Party(party.tenant, Lane.BULK))
                if bulk is not None:
                    bulk.passed += 1
            self._start(party)
            turn.set_result(None)

    def _next(self) -> _Party | None:
        """Returns whose call is next; None if there is no room for any that waits."""
        limit = self.limit
        if self._calls >= limit:
            return None
        bulk_full = self._bulk_fills(_BULK_PART)
        bulk_crowded = self._bulk_fills(_BULK_TURNS)
        chosen, least = None, (limit, False)
        for party, queue in self._queues.items():
            is_bulk = party.lane is Lane.BULK
            if is_bulk and bulk_full:
                continue
            # Writes that never had their turn while searches wait would be lost for hours.
            due = is_bulk and queue.passed >= _BULK_TURNS - 1
            running = self._running_bulk if due else self._running
            order = running.get(party.tenant, 0), is_bulk and bulk_crowded and not due
            if order < least:
                chosen, least = party, order
                if order == (0, False):
                    break
        return chosen

    def _forget(self, party: _Party, turn: Future[None]) -> None:
        queue = self._queues.get(party)
        if queue is None or turn not in queue.calls:
            return
        queue.calls.remove(turn)
        self._waiting -= 1
        if not queue.calls:
            del self._queues[party]

    def _make_room(self, new: _Party) -> None:
        """Refuses the newest call of the longest queue, or the new one.

        The new one if its tenant has as many calls as the other, or its queue is as long.
        """
        party = max(self._queues, key=self._length, default=new)
        error = Overloaded(
            f"{self._calls:,} calls are running and {self._waiting:,} are waiting, and --max-calls "
            f"is {self._max_calls:,}; retry later, send fewer calls at once, or add servers",
            retry_after_s=_RETRY_AFTER_S,
        )
        _refused.labels("max_calls").inc()
        if party.tenant == new.tenant:
            is_more = self._length(party) > self._length(new)
        else:
            is_more = self._count(party.tenant) > self._count(new.tenant)
        if not is_more:
            raise error
        turn = self._queues[party].calls[-1]
        self._forget(party, turn)
        # Its caller may have given up just now.
        if not turn.done():
            turn.set_exception(error)

    def _length(self, party: _Party) -> int:
        queue = self._queues.get(party)
        return 0 if queue is None else len(queue.calls)

    def _count(self, tenant: str) -> int:
        """Returns the calls and streams of a tenant that run and wait."""
        parties = [_Party(tenant, lane) for lane in Lane]
        return self._running[tenant] + sum(self._length(p) + self._streams[p] for p in parties)

    def _adjust(self, now_s: float) -> None:
        """Ends a window: lowers the limit if all work had to wait, else raises it."""
        waited_s = self._waits.take()
        if waited_s > _MOST_WAIT_S:
            self._rises_s = now_s + min(waited_s, _MOST_NEWS_S)
            is_long = waited_s > _LONG_WAIT_S and self._limit <= _LEAST_LIMIT
            least = _LEAST_LONG if is_long else _LEAST_LIMIT
            # If fewer ran, something else kept the work waiting, such as a long batch.
            if self._peak > least:
                fallen = max(least, _FALL * min(self._limit, self._peak))
                self._limit = min(self._limit, fallen)
        elif now_s >= self._rises_s:
            self._limit = self._limit * _RISE + 1
        self._limit = min(self._limit, self._max_calls)
        self._window_end_s = now_s + _WINDOW_S
        self._peak = self._calls
        if self._queues:
            self._give_turns(now_s)

    def _watch_later(self) -> None:
        """Ends windows while calls wait, even if no other begins."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_WINDOW_S, self._watch)

    def _watch(self) -> None:
        now_s = self._clock()
        if now_s >= self._window_end_s:
            self._adjust(now_s)
        self._watching = False
        if self._queues:
            self._watch_later()
