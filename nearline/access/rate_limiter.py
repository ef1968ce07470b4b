"""Limits calls by tenant and key: their rate, how many run at once, and their size."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

from nearline.access.caller import Caller
from nearline.access.limits import NO_LIMITS, LimitFile, Limits, LimitTable
from nearline.errors import InvalidRequest, Overloaded

RATE_LIMIT_KEY: Final = "ratelimit"
_MAX_ACCOUNTS: Final = 1 << 16
_CONCURRENT_RETRY_S = 0.1
_refused = Counter(
    "nearline_server_limited_calls_total",
    "Calls refused by a limit of their tenant or key, by limit.",
    ("limit",),
)


class _Account:
    """The calls of one tenant or key.

    whose: Such as "tenant 'shop'". rate: Calls per second; 0 if it is not limited. size: Calls that
        it may make at once after a pause. tokens: Calls that it may make at once now.
    """

    __slots__ = ("_concurrent", "_filled_s", "limits", "rate", "running", "size", "tokens", "whose")

    def __init__(self, whose: str, limits: Limits, now_s: float) -> None:
        self.whose = whose
        self.running = 0
        self._filled_s = now_s
        self._set(limits)
        self.tokens = self.size

    def _set(self, limits: Limits) -> None:
        self.limits = limits
        self.rate = limits.requests_per_s or 0.0
        self.size = float(limits.burst or max(1.0, self.rate))
        self._concurrent = limits.concurrent or math.inf

    def refill(self, limits: Limits, now_s: float) -> None:
        """Adds the calls that were earned since the last one."""
        if limits is not self.limits:
            self._set(limits)
        self.tokens = min(self.size, self.tokens + (now_s - self._filled_s) * self.rate)
        self._filled_s = now_s

    def check(self) -> None:
        """Raises Overloaded if another call would be too many."""
        self.check_rate()
        if self.running >= self._concurrent:
            _refused.labels("concurrent").inc()
            raise Overloaded(
                f"{self.running:,} calls of {self.whose} are running, and its limit is "
                f"{self._concurrent:,} (concurrent); retry later, send fewer calls at once, or ask "
                "the operator for a higher limit",
                retry_after_s=_CONCURRENT_RETRY_S,
            )

    def check_rate(self) -> None:
        """Raises Overloaded if another request would be too many for this second."""
        if self.rate and self.tokens < 1:
            _refused.labels("requests_per_s").inc()
            raise Overloaded(
                f"{self.whose} may send {self.rate:g} requests per second (requests_per_s); retry "
                "later, send fewer, or ask the operator for a higher limit",
                retry_after_s=(1 - self.tokens) / self.rate,
            )


class RateLimiter:
    """Counts the calls of each tenant and key in this process.

    Args:
        limits: The limits.
        clock: Returns seconds.
    """

    def __init__(self, limits: LimitFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        # By kind and name, the least recently used first.
        self._accounts: OrderedDict[tuple[str, str], _Account] = OrderedDict()

    @property
    def table(self) -> LimitTable:
        """The limits in force."""
        return self._limits.table

    def begin(self, caller: Caller) -> RunningCall | None:
        """Counts a call; its `end` must be called when it ends.

        Returns: None if nothing limits the caller.
        Raises: Overloaded: the caller has too many calls, per second or at once.
        """
        held = self._accounts_of(caller)
        if not held:
            return None
        # First all checks: a refused call uses up nothing.
        for account in held:
            account.check()
        for account in held:
            account.tokens -= bool(account.rate)
            account.running += 1
        return RunningCall(held)

    def count(self, caller: Caller) -> None:
        """Counts a request of a stream, which is a call that runs already.

        Raises: Overloaded: the caller sends too many requests per second.
        """
        held = self._accounts_of(caller)
        for account in held:
            account.check_rate()
        for account in held:
            account.tokens -= bool(account.rate)

    def _accounts_of(self, caller: Caller) -> tuple[_Account, ...]:
        table = self.table
        held: tuple[_Account, ...] = ()
        if (limits := table.of_tenant(caller)) is not NO_LIMITS:
            held = (self._account("tenant", caller.tenant, limits),)
        if (limits := table.of_key(caller)) is not NO_LIMITS:
            held = (*held, self._account("key", caller.key, limits))
        return held

    def _account(self, kind: str, name: str, limits: Limits) -> _Account:
        now_s = self._clock()
        key = kind, name
        account = self._accounts.get(key)
        if account is None:
            self._forget()
            account = self._accounts[key] = _Account(f"{kind} {name!r}", limits, now_s)
        self._accounts.move_to_end(key)
        account.refill(limits, now_s)
        return account

    def _forget(self) -> None:
        """Makes room for an account: drops the least recently used one that has no running call."""
        if len(self._accounts) >= _MAX_ACCOUNTS:
            idle = (name for name, account in self._accounts.items() if not account.running)
            if (oldest := next(idle, None)) is not None:
                del self._accounts[oldest]


class RunningCall:
    """A call that counts against limits until it ends."""

    __slots__ = ("_ended", "_held")

    def __init__(self, held: tuple[_Account, ...]) -> None:
        self._held = held
        self._ended = False

    @property
    def limits(self) -> list[tuple[str, Limits]]:
        """The limits of the call, each with whose they are, such as "tenant 'shop'"."""
        return [(account.whose, account.limits) for account in self._held]

    def trailers(self) -> tuple[tuple[str, str], ...]:
        """Returns the least that the caller may still do, as a trailer of the reply.

        "limit=100, remaining=42, reset=0.580": calls per second, calls that it may make at once,
        and seconds until its whole burst is back. Empty if its rate is not limited.
        """
        least: _Account | None = None
        for account in self._held:
            if account.rate and (least is None or account.tokens < least.tokens):
                least = account
        if least is None:
            return ()
        reset_s = (least.size - least.tokens) / least.rate
        told = f"limit={least.rate:g}, remaining={int(least.tokens)}, reset={reset_s:.3f}"
        return ((RATE_LIMIT_KEY, told),)

    def check_size(self, size: int) -> None:
        """Raises InvalidRequest if a request is too large. size: In bytes."""
        for account in self._held:
            limit = account.limits.request_bytes
            if limit is not None and size > limit:
                _refused.labels("request_bytes").inc()
                raise InvalidRequest(
                    f"the request has {size:,} bytes, and the limit of {account.whose} is "
                    f"{limit:,} (request_bytes); send it in parts, or ask the operator for a "
                    "higher limit"
                )

    def end(self) -> None:
        """Ends the call, if it has not ended."""
        if not self._ended:
            self._ended = True
            for account in self._held:
                account.running -= 1
