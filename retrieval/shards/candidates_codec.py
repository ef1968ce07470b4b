"""Converts between the records of candidates and the messages of ShardService."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline import wire
from nearline.errors import InternalError, InvalidRequest
from nearline.internal.v1 import shard_pb2
from retrieval.protocols.candidates import (
    CandidatesRequest,
    KeyedHistory,
    PackedIds,
    ShardCandidates,
    StoredHistory,
)
from retrieval.protocols.scored_rows import ScoredRows
from retrieval.protocols.watermark import decode_watermark
from retrieval.shards.codec import applied_from_proto, fill_applied, watermark_to_bytes

# Bounds of one request; routers stay far below them.
MAX_EVENTS = 16_384
MAX_HIDDEN = 65_536
MAX_GENERATORS = 8
MAX_FOUND = 16_384


def request_to_proto(
    request: CandidatesRequest,
    collection: str,
    snapshot_id: str,
    shard: int,
    also: Sequence[int] = (),
) -> shard_pb2.FindCandidatesRequest:
    """Converts a request to a message."""
    history, reasons_for = request.history, request.reasons_for
    return shard_pb2.FindCandidatesRequest(
        collection=collection,
        snapshot_id=snapshot_id,
        shard=shard,
        generators=request.generators,
        keys=_bytes(history.keys, "<u8"),
        time_us=_bytes(history.time_us, "<i8"),
        weights=_bytes(history.weight, "<f4"),
        most=request.most,
        repeats=request.repeats,
        hidden=_bytes(request.hidden, "<u8"),
        hide_history=request.hide_history,
        now_us=request.now_us,
        filter=None if request.filter is None else wire.filter_to_proto(request.filter),
        min_watermark=watermark_to_bytes(request.min_watermark),
        trained_only=request.trained_only,
        reasons_for=b"" if reasons_for is None else _bytes(reasons_for, "<u8"),
        explain=reasons_for is not None,
        among=_bytes(request.among, "<u8"),
        also=also,
        segments=history.segments,
    )


def request_from_proto(message: shard_pb2.FindCandidatesRequest) -> CandidatesRequest:
    """Converts a message to a request.

    Raises: InvalidRequest: an array is malformed, or a number exceeds its bound.
    """
    history = KeyedHistory(
        _array(message.keys, "<u8", "keys", MAX_EVENTS),
        _array(message.time_us, "<i8", "time_us", MAX_EVENTS),
        _array(message.weights, "<f4", "weights", MAX_EVENTS),
        tuple(message.segments[:16]),
    )
    if not len(history.keys) == len(history.time_us) == len(history.weight):
        raise InvalidRequest(
            f"a history has {len(history.keys)} keys, {len(history.time_us)} times and "
            f"{len(history.weight)} weights; send equal numbers",
            field="keys",
        )
    if not (np.isfinite(history.weight) & (history.weight > 0)).all():
        raise InvalidRequest("weights must be finite and above 0", field="weights")
    if not 1 <= len(message.generators) <= MAX_GENERATORS:
        raise InvalidRequest(
            f"there are {len(message.generators)} generators; 1..{MAX_GENERATORS} are allowed",
            field="generators",
        )
    if message.most > MAX_FOUND:
        raise InvalidRequest(
            f"most is {message.most}; at most {MAX_FOUND} is allowed", field="most"
        )
    if len({message.shard, *message.also}) != 1 + len(message.also) or len(message.also) >= 64:
        raise InvalidRequest(
            "also names a shard twice, or more than 63; name each further shard once", field="also"
        )
    explained = _array(message.reasons_for, "<u8", "reasons_for", MAX_FOUND)
    return CandidatesRequest(
        tuple(message.generators),
        history,
        message.most,
        repeats=message.repeats,
        hidden=_array(message.hidden, "<u8", "hidden", MAX_HIDDEN),
        hide_history=message.hide_history,
        now_us=message.now_us,
        filter=wire.filter_of(message),
        min_watermark=decode_watermark(message.min_watermark),
        trained_only=message.trained_only,
        reasons_for=explained if message.explain else None,
        among=_array(message.among, "<u8", "among", MAX_FOUND),
    )


def candidates_to_proto(found: ShardCandidates) -> shard_pb2.FindCandidatesResponse:
    """Converts candidates to a message."""
    message = shard_pb2.FindCandidatesResponse(
        events=found.events.tobytes(),
        numbers=_bytes(found.numbers, "<i4"),
        ids=found.ids.content,
        id_bytes=_bytes(found.ids.ends - found.ids.starts, "<i4"),
        levels=_bytes(found.levels, "<f4"),
        columns=_bytes(found.columns, "<f4"),
        total_count=found.total_count,
    )
    for one in found.scored:
        message.scored.add(numbers=_bytes(one.rows, "<i4"), scores=_bytes(one.scores, "<f4"))
    for reasons in found.reasons:
        message.reasons.add(reasons=reasons)
    fill_applied(message, found.applied)
    return message


def candidates_from_proto(message: shard_pb2.FindCandidatesResponse) -> ShardCandidates:
    """Converts a message to candidates.

    Raises: InternalError: the arrays of the message do not fit together.
    """
    numbers = np.frombuffer(message.numbers, "<i4").astype(np.int64)
    columns = np.frombuffer(message.columns, "<f4")
    try:
        return ShardCandidates(
            events=np.frombuffer(message.events, np.uint8),
            scored=[
                ScoredRows(
                    np.frombuffer(one.numbers, "<i4").astype(np.int64),
                    np.frombuffer(one.scores, "<f4"),
                )
                for one in message.scored
            ],
            numbers=numbers,
            ids=_ids(message.ids, message.id_bytes),
            levels=np.frombuffer(message.levels, "<f4"),
            columns=columns.reshape(len(columns) // max(len(numbers), 1), len(numbers)),
            reasons=[tuple(one.reasons) for one in message.reasons],
            total_count=message.total_count,
            applied=applied_from_proto(message),
        )
    except ValueError as error:
        raise InternalError(f"a shard sent malformed candidates ({error}); update it") from error


def history_to_proto(history: StoredHistory) -> shard_pb2.ReadHistoryResponse:
    """Converts the history of a user to a message."""
    return shard_pb2.ReadHistoryResponse(
        ids=history.ids.content,
        id_bytes=_bytes(history.ids.ends - history.ids.starts, "<i4"),
        time_us=_bytes(history.time_us, "<i8"),
        weights=_bytes(history.weight, "<f4"),
        again=sorted(history.again),
    )


def history_from_proto(message: shard_pb2.ReadHistoryResponse) -> StoredHistory:
    """Converts a message to the history of a user."""
    return StoredHistory(
        _ids(message.ids, message.id_bytes),
        np.frombuffer(message.time_us, "<i8"),
        np.frombuffer(message.weights, "<f4"),
        again=frozenset(message.again),
    )


def _ids(content: bytes, lengths: bytes) -> PackedIds:
    sizes = np.frombuffer(lengths, "<i4").astype(np.int64)
    ends = np.cumsum(sizes)
    return PackedIds(content, ends - sizes, ends)


def _bytes(array: NDArray[Any], kind: str) -> bytes:
    return array.astype(kind, copy=False).tobytes()


def _array(data: bytes, kind: str, field: str, most: int) -> NDArray[Any]:
    size = np.dtype(kind).itemsize
    if len(data) % size or len(data) > most * size:
        raise InvalidRequest(
            f"{field} has {len(data)} bytes; whole numbers of {size} bytes, at most {most} of "
            "them, are allowed",
            field=field,
        )
    return np.frombuffer(data, kind)
