"""Results of the checks of `nearline doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CheckStatus(Enum):
    """Outcome of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check: its verdict, its finding, and the remedy."""

    check: str
    verdict: CheckStatus
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> CheckResult:
    """Returns a check that found no problem."""
    return CheckResult(check, CheckStatus.OK, found)


def warn(check: str, found: str, remedy: str = "") -> CheckResult:
    """Returns a check that found something that works, but not well."""
    return CheckResult(check, CheckStatus.WARN, found, remedy)


def fail(check: str, found: str, remedy: str = "") -> CheckResult:
    """Returns a check that found a problem."""
    return CheckResult(check, CheckStatus.FAIL, found, remedy)
