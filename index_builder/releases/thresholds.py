"""The thresholds of a collection's gate: records in the store, of which the highest number is
current.

Layout: <store>/<collection>/gate/thresholds/<number:010d>.json; only ever created, never changed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from nearline.errors import AlreadyExists, InvalidRequest
from nearline.store.json_records import RecordSeries
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import release_pb2

# About a damaged record.
_REMEDY = "restore it, or remove it and set the thresholds again with nearline gate set"
# Of max_latency_ratio, a multiple; the other thresholds are shares.
_MAX_RATIO = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """Limits of the checks; see GateThresholds. A negative value disables the check."""

    min_recall: float = 0.95
    max_ndcg_loss: float = 0.02
    min_ndcg: float = -1.0
    min_overlap: float = 0.5
    max_missing: float = 0.02
    max_moved: float = 0.01
    max_latency_ratio: float = 1.5
    max_recommend_loss: float = 0.02


NAMES = tuple(one.name for one in fields(GateLimits))


def parse_limits(thresholds: release_pb2.GateThresholds) -> GateLimits:
    """Returns the limits of a record; missing values have their default."""
    return GateLimits(
        **{name: getattr(thresholds, name) for name in NAMES if thresholds.HasField(name)}
    )


def current_thresholds(store: Store, collection: str) -> release_pb2.GateThresholds:
    """Returns the current record; number 0, without values, if there is none.

    Raises: SnapshotCorrupt: it cannot be read. StoreError.
    """
    newest = _records(store, collection).newest()
    return release_pb2.GateThresholds() if newest is None else newest[1]


def set_thresholds(
    store: Store, collection: str, thresholds: release_pb2.GateThresholds
) -> release_pb2.GateThresholds:
    """Adds a record, which becomes current.

    Args:
        thresholds: Values; number and time are assigned.
    Returns: The record as stored.
    Raises: InvalidRequest: a value is out of range. StoreError.
    """
    for name in NAMES:
        value = getattr(thresholds, name)
        limit = _MAX_RATIO if name == "max_latency_ratio" else 1.0
        # NaN is in no range.
        if thresholds.HasField(name) and not -_MAX_RATIO <= value <= limit:
            raise InvalidRequest(
                f"{name} is {value:g}; 0..{limit:g} is allowed, or a negative number to switch the "
                "check off",
                field=name,
            )
    record = release_pb2.GateThresholds()
    record.CopyFrom(thresholds)
    record.create_time.GetCurrentTime()
    records = _records(store, collection)
    while True:
        record.number = current_thresholds(store, collection).number + 1
        try:
            records.create(record.number, record)
        except AlreadyExists:
            continue  # A concurrent process took this number.
        return record


def _records(store: Store, collection: str) -> RecordSeries[release_pb2.GateThresholds]:
    folder = f"{check_collection(collection)}/gate/thresholds"
    return RecordSeries(store.files, folder, release_pb2.GateThresholds, _REMEDY)
