"""Filters of requests and of surfaces together, and their digest."""

from __future__ import annotations

from nearline import wire
from nearline.filters import All, Filter
from retrieval.cache.cached_list import message_digest


def merge_filters(asked: Filter | None, only: Filter | None) -> Filter | None:
    """Returns what fulfils both; `only` itself where nothing else is asked for."""
    if asked is None or only is None:
        return only if asked is None else asked
    return All(asked, only)


def filter_digest(condition: Filter | None) -> str:
    """Returns 24 hex digits of a filter, the same in every process; empty: there is none."""
    return "" if condition is None else message_digest(wire.filter_to_proto(condition))
