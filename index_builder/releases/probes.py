"""Requests to replay on snapshots: recorded ones, otherwise golden queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError
from nearline.internal.v1 import traffic_pb2
from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic
from nearline.wire.queries import options_from_proto, query_from_proto
from nearline.wire.recommendations import audience_from_proto, recommend_options

_NO_PAYLOAD: frozenset[c.PayloadField] = frozenset()
RECORDED, GOLDEN = "recorded", "golden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One request.

    fingerprint: Fingerprint of the embedder of its vectors; empty if the caller supplied them.
    query, options: Query and options of a search; query is None for a list.
    vector: (d,) float32, the embedding of its text; None if unknown.
    audience, list_options: Audience and options of a list, which is requested without its user;
        audience is None for a search.
    """

    fingerprint: str
    query: c.Query | None = None
    options: c.SearchOptions = field(default_factory=c.SearchOptions)
    vector: NDArray[np.float32] | None = None
    audience: c.Audience | None = None
    list_options: c.RecommendOptions = field(default_factory=c.RecommendOptions)

    @property
    def kind(self) -> str:
        """The input of a search: text, vector or items; or list."""
        if self.query is None:
            return "list"
        if self.query.text is not None:
            return "text"
        return "items" if self.query.item_ids else "vector"

    def describe(self) -> str:
        """Returns the request as text for people."""
        if self.query is None:
            assert self.audience is not None
            with_items = f" with {', '.join(self.audience.item_ids)}" * bool(self.audience.item_ids)
            return f"{self.audience.surface}{with_items}"
        if self.query.text is not None:
            return self.query.text
        return ", ".join(self.query.item_ids) or "a vector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Requests, newest first.

    source: RECORDED or GOLDEN.
    unreadable: Number of unreadable requests by reason.
    """

    probes: list[Probe]
    source: str
    unreadable: Mapping[str, int] = field(default_factory=dict)


def probes_for(store: Store, collection: str, first: LoadedSnapshot, limit: int) -> Probes:
    """Returns the recorded requests of a collection or, if there are none, golden queries of a
    snapshot.

    Args:
        limit: Maximum number of requests.
    Raises: SnapshotCorrupt: a file of recorded requests cannot be read.
    """
    found: list[Probe] = []
    unreadable: dict[str, int] = {}
    for message in read_traffic(store, collection, limit):
        try:
            found.append(probe_of(message))
        except NearlineError as error:
            unreadable[error.message] = unreadable.get(error.message, 0) + 1
    if found:
        return Probes(probes=found, source=RECORDED, unreadable=unreadable)
    return Probes(probes=golden_probes(first)[:limit], source=GOLDEN, unreadable=unreadable)


def golden_probes(snapshot: LoadedSnapshot) -> list[Probe]:
    """Returns the golden queries of a snapshot as requests."""
    if snapshot.golden is None:
        return []
    return [
        Probe(fingerprint=snapshot.fingerprint, query=c.Query(vector=vector))
        for vector in snapshot.golden.vectors
    ]


def probe_of(message: traffic_pb2.RecordedRequest) -> Probe:
    """Converts a recorded request; payload, snapshot and watermark are dropped.

    Raises: InvalidRequest: this version does not know the request.
    """
    vector = _vector(message.vector)
    if message.WhichOneof("kind") == "recommend":
        list_options = replace(
            recommend_options(message.recommend),
            payload=_NO_PAYLOAD,
            explain=False,
            min_watermark=b"",
            why_not_id="",
        )
        audience = audience_from_proto(message.recommend)
        return Probe(
            fingerprint=message.fingerprint,
            audience=c.Audience(item_ids=audience.item_ids, surface=audience.surface),
            list_options=list_options,
        )
    options = replace(
        options_from_proto(message.search.options),
        payload=_NO_PAYLOAD,
        explain=False,
        snapshot_id="",
        min_watermark=b"",
        unit="",
    )
    return Probe(
        fingerprint=message.fingerprint,
        query=query_from_proto(message.search.query),
        options=options,
        vector=vector,
    )


def _vector(data: bytes) -> NDArray[np.float32] | None:
    if not data:
        return None
    if len(data) % 4:
        raise InvalidRequest(f"the vector has {len(data)} bytes, which is not a multiple of 4")
    return np.frombuffer(data, "<f4").astype(np.float32)
