"""Kinds of methods: which carry bulk work, which last, and which are expected to be quick."""

from __future__ import annotations

from typing import Final

# Operators and other services need these most when a service is overloaded.
_UNLIMITED_SERVICE: Final = "nearline.v1.AdminService"
_UNLIMITED_METHODS: Final = frozenset({"GetInfo", "GetStatus", "LoadSnapshot", "UnloadSnapshot"})
# Writes, pages and jobs, which programs repeat; for searches, lists and answers somebody waits.
BULK_METHODS: Final = frozenset(
    {"UpsertItems", "ListItems", "Submit", "ListResults", "ListDeadLetters"}
)
# Streams of replies that end only when something else does; other streams are answers.
LASTING_METHODS: Final = frozenset({"WatchJob"})
_ANSWER_SERVICE: Final = "nearline.v1.GenerationService"
# Language models write for seconds.
SLOW_ANSWER_MS: Final = 10_000.0


def is_limited(service: str, method: str) -> bool:
    """Returns whether a call may be refused because others run.

    service: Full name, such as "nearline.v1.RetrievalService"; so below.
    """
    return service != _UNLIMITED_SERVICE and method not in _UNLIMITED_METHODS


def slow_limit_ms(
    service: str, method: str, *, streams_in: bool, search_ms: float, answer_ms: float
) -> float:
    """Returns the milliseconds beyond which a call belongs into the log of slow requests.

    Args:
        streams_in: Whether the method takes a stream of requests.
        search_ms: Limit of methods that are expected to be quick.
        answer_ms: Limit of the generation service's.
    Returns: 0 where nobody expects a quick reply: bulk work, streams that last, operators' calls.
    """
    if streams_in or not is_limited(service, method) or method in BULK_METHODS | LASTING_METHODS:
        return 0.0
    return answer_ms if service == _ANSWER_SERVICE else search_ms
