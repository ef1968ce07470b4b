"""Rates and concurrency by tenant and key, on a clock of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.access import rate_limiter
from nearline.access.caller import Caller
from nearline.access.limits import LimitFile
from nearline.access.rate_limiter import RateLimiter, RunningCall
from nearline.access.rights import Right
from nearline.errors import InvalidRequest, Overloaded

READS = {"*": Right.READ}
SHOP, OTHER = (Caller(name, rights=READS, key=f"key of {name}") for name in ("shop", "other"))


class Limited:
    """A limiter, and its clock."""

    def __init__(self, folder: Path, text: str) -> None:
        self.now = 100.0
        self.file = folder / "limits.toml"
        self.file.write_text(text)
        self.limiter = RateLimiter(LimitFile(str(self.file), self.clock), self.clock)

    def clock(self) -> float:
        return self.now

    def begin(self, caller: Caller) -> RunningCall:
        """Begins a call of a caller who has limits."""
        call = self.limiter.begin(caller)
        assert call is not None
        return call

    def allowed(self, caller: Caller, calls: int) -> int:
        """Returns how many of some calls, one after another, are let in."""
        done = 0
        for _ in range(calls):
            try:
                self.begin(caller).end()
                done += 1
            except Overloaded:
                continue
        return done


def test_after_a_burst_calls_are_let_in_at_the_rate(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 10\nburst = 30")
    assert limited.allowed(SHOP, 100) == 30
    for _ in range(20):
        limited.now += 0.25
        assert limited.allowed(SHOP, 100) in (2, 3)
    # Neither does a longer pause save up more than the burst.
    limited.now += 1_000
    assert limited.allowed(SHOP, 100) == 30
    # Another tenant has its own.
    assert limited.allowed(OTHER, 100) == 30


def test_a_refusal_says_when_to_retry_and_then_it_works(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 4\nburst = 1")
    limited.begin(SHOP).end()
    limited.now += 0.05
    with pytest.raises(Overloaded, match="tenant 'shop' may send 4 requests per second") as caught:
        limited.begin(SHOP)
    assert caught.value.retry_after_s == pytest.approx(0.2)
    limited.now += 0.2 + 1e-9
    limited.begin(SHOP).end()


def test_a_rate_below_one_lets_single_calls_in(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 0.5")
    assert limited.allowed(SHOP, 5) == 1
    limited.now += 2.0
    assert limited.allowed(SHOP, 5) == 1


def test_calls_at_once_are_counted_until_they_end(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nconcurrent = 2")
    first, second = limited.begin(SHOP), limited.begin(SHOP)
    with pytest.raises(Overloaded, match="2 calls of tenant 'shop' are running") as caught:
        limited.begin(SHOP)
    assert caught.value.retry_after_s is not None
    limited.begin(OTHER)
    first.end()
    limited.begin(SHOP)
    # However often it is told, a call ends once.
    for _ in range(3):
        second.end()
    limited.begin(SHOP)
    with pytest.raises(Overloaded, match="2 calls of tenant 'shop' are running"):
        limited.begin(SHOP)
    assert first.trailers() == ()


def test_a_key_is_limited_beside_its_tenant_and_a_refused_call_costs_nothing(
    tmp_path: Path,
) -> None:
    text = '[default]\nrequests_per_s = 10\n[keys."key of shop"]\nrequests_per_s = 3'
    limited = Limited(tmp_path, text)
    call = limited.begin(SHOP)
    assert [whose for whose, _ in call.limits] == ["tenant 'shop'", "key 'key of shop'"]
    # The smallest is told.
    assert call.trailers() == (("ratelimit", "limit=3, remaining=2, reset=0.333"),)
    assert limited.allowed(SHOP, 50) == 2
    # Nor does a refused request of a stream.
    for _ in range(5):
        with pytest.raises(Overloaded, match="key 'key of shop'"):
            limited.limiter.count(SHOP)
    assert limited.allowed(Caller("shop", rights=READS, name="second key"), 50) == 7
    # The smallest may be that of the tenant.
    limited.now += 1_000
    assert limited.allowed(Caller("shop", rights=READS, name="second key"), 9) == 9
    assert limited.begin(SHOP).trailers() == (("ratelimit", "limit=10, remaining=0, reset=1.000"),)


def test_a_large_request_is_refused_with_its_limit(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequest_bytes = 1_000")
    call = limited.begin(SHOP)
    call.check_size(1_000)
    with pytest.raises(InvalidRequest, match=r"1,001 bytes.*tenant 'shop' is 1,000"):
        call.check_size(1_001)


def test_who_has_no_limits_is_not_counted(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 1")
    assert limited.limiter.begin(Caller("*", rights=READS)) is None


def test_limits_that_change_hold_for_who_called_before(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 1")
    assert limited.allowed(SHOP, 10) == 1
    limited.file.write_text("[default]\nrequests_per_s = 100\nburst = 5")
    limited.now += 2.0
    assert limited.allowed(SHOP, 10) == 5
    limited.file.write_text("[default]\nk = 7")
    limited.now += 2.0
    assert limited.allowed(SHOP, 10) == 10


def test_tenants_beyond_counting_are_forgotten_unless_they_call_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "_MAX_ACCOUNTS", 4)
    limited = Limited(tmp_path, "[default]\nconcurrent = 1\nrequests_per_s = 100")
    running = limited.begin(SHOP)
    for number in range(20):
        limited.begin(Caller(f"t{number}", rights=READS)).end()
    assert len(limited.limiter._accounts) == 4
    with pytest.raises(Overloaded, match="1 calls of tenant 'shop'"):
        limited.begin(SHOP)
    running.end()


def test_the_tenant_that_called_least_recently_is_forgotten_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "_MAX_ACCOUNTS", 2)
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 1")
    third = Caller("third", rights=READS)
    assert [limited.allowed(one, 1) for one in (SHOP, OTHER, SHOP, third)] == [1, 1, 0, 1]
    assert [limited.allowed(one, 1) for one in (SHOP, OTHER)] == [0, 1]


def test_each_request_of_a_stream_counts_for_the_rate_alone(tmp_path: Path) -> None:
    limited = Limited(tmp_path, "[default]\nrequests_per_s = 1\nburst = 3\nconcurrent = 1")
    stream = limited.begin(SHOP)
    for _ in range(2):
        limited.limiter.count(SHOP)
    with pytest.raises(Overloaded, match="1 requests per second"):
        limited.limiter.count(SHOP)
    stream.end()
    limited.limiter.count(Caller("*", rights=READS))
