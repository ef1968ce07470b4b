"""Limits calls by tenant and key: their rate, how many run at once, and their size."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from nearline.access.caller import Caller
from nearline.access.limits import LimitFile, Limits
from nearline.errors import InvalidRequest, Overloaded

_MAX_ACCOUNTS: Final = 1 << 16
_CONCURRENT_RETRY_S = 0.1
_refused = Counter(
    "nearline_server_limited_calls_total",
    "Calls refused by a limit of their tenant or key, by limit.",
    ("limit",),
)


@dataclass(slots=True)
class _Account:
    """What one tenant or key has used. tokens: Calls that it may still make at once."""

    tokens: float
    filled_s: float
    running: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller may still do, for the header of the reply.

    limit: Calls per second. remaining: Calls that it may make at once. reset_s: Seconds until all
    of `burst` are there again.
    """

    limit: float
    remaining: int
    reset_s: float


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

    def begin(self, caller: Caller) -> RunningCall:
        """Counts a call; `end` must be called when it ends.

        Raises: Overloaded: the caller has too many calls, per second or at once.
        """
        table = self._limits.table
        bounds = [(("tenant", caller.tenant), table.of_tenant(caller))]
        if (own := table.of_key(caller)) is not None:
            bounds.append((("key", caller.name), own))
        held = [(name, limits, self._account(name, limits)) for name, limits in bounds]
        # First all checks: a refused call uses up nothing.
        for name, limits, account in held:
            _check(" ".join(map(repr, name[1:])), name[0], limits, account)
        for _, limits, account in held:
            account.tokens -= limits.requests_per_s is not None
            account.running += 1
        return RunningCall([(name, limits, account) for name, limits, account in held])

    def _account(self, name: tuple[str, str], limits: Limits) -> _Account:
        now_s = self._clock()
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(limits.bucket_size, now_s)
            self._forget()
        self._accounts.move_to_end(name)
        earned = (now_s - account.filled_s) * (limits.requests_per_s or 0.0)
        account.tokens = min(limits.bucket_size, account.tokens + max(0.0, earned))
        account.filled_s = now_s
        return account

    def _forget(self) -> None:
        """Drops the accounts that were used least recently, unless calls of theirs run."""
        for name in list(self._accounts) if len(self._accounts) > _MAX_ACCOUNTS else ():
            if len(self._accounts) <= _MAX_ACCOUNTS:
                break
            if not self._accounts[name].running:
                del self._accounts[name]


class RunningCall:
    """A call that counts against limits until it ends."""

    __slots__ = ("_held",)

    def __init__(self, held: list[tuple[tuple[str, str], Limits, _Account]]) -> None:
        self._held = held

    @property
    def limits(self) -> list[tuple[str, Limits]]:
        """The limits of the call, each with whose they are, such as "tenant 'shop'"."""
        return [(f"{kind} {name!r}", limits) for (kind, name), limits, _ in self._held]

    @property
    def allowance(self) -> Allowance | None:
        """The smallest allowance that is left; None if the rate is not limited."""
        left = [
            Allowance(
                limits.requests_per_s,
                math.floor(account.tokens),
                (limits.bucket_size - account.tokens) / limits.requests_per_s,
            )
            for _, limits, account in self._held
            if limits.requests_per_s is not None
        ]
        return min(left, key=lambda one: one.remaining, default=None)

    def trailers(self) -> list[tuple[str, str]]:
        """Returns what the caller may still do, as trailers of the reply."""
        allowance = self.allowance
        if allowance is None:
            return []
        return [
            ("x-ratelimit-limit", f"{allowance.limit:g}"),
            ("x-ratelimit-remaining", str(allowance.remaining)),
            ("x-ratelimit-reset", f"{allowance.reset_s:.3f}"),
        ]

    def check_size(self, size: int) -> None:
        """Raises InvalidRequest if a request of so many bytes is too large."""
        for whose, limits in self.limits:
            if limits.request_bytes is not None and size > limits.request_bytes:
                _refused.labels("request_bytes").inc()
                raise InvalidRequest(
                    f"the request has {size:,} bytes, and the limit of {whose} is "
                    f"{limits.request_bytes:,} (request_bytes); send it in parts, or ask the "
                    "operator for a higher limit"
                )

    def end(self) -> None:
        """Ends the call."""
        for _, _, account in self._held:
            account.running -= 1


def _check(name: str, kind: str, limits: Limits, account: _Account) -> None:
    if limits.concurrent is not None and account.running >= limits.concurrent:
        _refused.labels("concurrent").inc()
        raise Overloaded(
            f"{account.running:,} calls of {kind} {name} are running, and its limit is "
            f"{limits.concurrent:,} (concurrent); retry later, send fewer calls at once, or ask "
            "the operator for a higher limit",
            retry_after_s=_CONCURRENT_RETRY_S,
        )
    if limits.requests_per_s is not None and account.tokens < 1:
        _refused.labels("requests_per_s").inc()
        raise Overloaded(
            f"{kind} {name} may send {limits.requests_per_s:g} requests per second "
            "(requests_per_s); retry later, send fewer, or ask the operator for a higher limit",
            retry_after_s=(1 - account.tokens) / limits.requests_per_s,
        )
