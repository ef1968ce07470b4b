"""Kinds of methods: which carry bulk work, which last, and which are expected to be quick."""

from __future__ import annotations

from typing import Final

# Operators and other services need these most when a service is overloaded: of this one, all but
# what readers ask for.
_UNLIMITED_SERVICE: Final = "nearline.v1.AdminService"
_UNLIMITED_METHODS: Final = frozenset({"GetInfo", "GetStatus", "LoadSnapshot", "UnloadSnapshot"})
_STORE_METHODS: Final = frozenset(
    {
        *("ListCollections", "GetCollection", "ListSnapshots", "GetSnapshot", "GetAliases"),
        *("GetPolicies", "GetRolloutStatus"),
    }
)
# Writes, pages, jobs and what is read from the store, which programs repeat; for searches, lists
# and answers somebody waits.
BULK_METHODS: Final = _STORE_METHODS | {
    *("UpsertItems", "ListItems", "Submit", "ListResults", "ListDeadLetters")
}
# Streams of replies that end only when something else does; other streams are answers.
LASTING_METHODS: Final = frozenset({"WatchJob"})
# Methods whose requests have many items, events, texts, turns or vectors; others ask for little.
_LARGE_METHODS: Final = frozenset(
    {
        *("UpsertItems", "UpsertItemsStream", "ImportInteractions", "Submit"),
        *("Embed", "EmbedStream", "Rerank", "Entail", "SearchBatch", "SearchShard", "Generate"),
    }
)
_SMALL_BYTES, _LARGE_BYTES = 4 << 20, 1 << 30
_ANSWER_SERVICE: Final = "nearline.v1.GenerationService"
# Language models write for seconds.
SLOW_ANSWER_MS: Final = 10_000.0


def is_limited(service: str, method: str) -> bool:
    """Returns whether a call may be refused because others run.

    service: Full name, such as "nearline.v1.RetrievalService"; so below.
    """
    if service == _UNLIMITED_SERVICE:
        return method in _STORE_METHODS
    return method not in _UNLIMITED_METHODS


def most_request_bytes(method: str) -> int:
    """Returns the size of the largest request of a method; --max-message-bytes holds, too."""
    return _LARGE_BYTES if method in _LARGE_METHODS else _SMALL_BYTES


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
