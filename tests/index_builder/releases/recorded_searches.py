"""Recorded searches whose best scores are known."""

from __future__ import annotations

import time
from collections.abc import Iterable

from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import write_traffic
from nearline.v1 import retrieval_pb2


def search(
    snapshot_id: str,
    score: float,
    *,
    mode: retrieval_pb2.SearchMode = retrieval_pb2.SEARCH_MODE_UNSPECIFIED,
    text: bool = False,
) -> RecordedRequest:
    """Returns a search that was made now. text: Whether it was one of a text."""
    found = RecordedRequest(snapshot_id=snapshot_id, scores=[score], vector=b"0000" * text)
    found.time.FromNanoseconds(time.time_ns())
    found.search.options.mode = mode
    return found


def record_searches(
    store: Store,
    scores: Iterable[float],
    *,
    mode: retrieval_pb2.SearchMode = retrieval_pb2.SEARCH_MODE_UNSPECIFIED,
    text: bool = False,
) -> None:
    """Records searches that the current snapshot answered with these best scores."""
    current = store.alias_in_force("default").current
    write_traffic(store, "default", [search(current, one, mode=mode, text=text) for one in scores])


def record_drift(store: Store) -> None:
    """Records searches of the current snapshot, of which the newest score much higher."""
    record_searches(store, [0.5] * 200 + [0.9] * 200)
