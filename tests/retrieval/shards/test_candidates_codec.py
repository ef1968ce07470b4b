"""Requests for candidates and their answers survive the wire; malformed ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearline.errors import InternalError, InvalidRequest
from nearline.filters import Equals
from nearline.internal.v1 import shard_pb2
from retrieval.behaviour.item_keys import keys_of
from retrieval.protocols.candidates import (
    NO_CANDIDATES,
    NO_HISTORY,
    CandidatesRequest,
    KeyedHistory,
    PackedIds,
    ShardCandidates,
    StoredHistory,
)
from retrieval.protocols.scored_rows import ScoredRows
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.shards import candidates_codec as codec

HISTORY = KeyedHistory(
    keys_of(["a", "é"]), np.array([2**62, -1], np.int64), np.array([0.5, 3], np.float32), (0, 15)
)
REQUEST = CandidatesRequest(
    ("user", "nearest"),
    HISTORY,
    300,
    repeats=True,
    hidden=keys_of(["x"]),
    hide_history=True,
    now_us=7,
    filter=Equals("colour", "red"),
    min_watermark=Watermark("0" * 32, tuple(range(64))),
    trained_only=True,
    reasons_for=keys_of(["y", "z"]),
    among=keys_of(["v", "w"]),
)
FOUND = ShardCandidates(
    events=np.array([0, 2], np.uint8),
    scored=[
        ScoredRows(np.array([1, 5]), np.array([0.25, -1], np.float32)),
        ScoredRows(np.array([5]), np.array([3], np.float32)),
    ],
    numbers=np.array([1, 5]),
    ids=PackedIds.of(["a", "日本"]),
    levels=np.array([0, 1.5], np.float32),
    columns=np.array([[1, 2], [3, 4], [5, 6]], np.float32),
    reasons=[("because:a", "new"), ("popular",)],
    total_count=12.5,
    applied=AppliedState(Watermark("0" * 32, (1,) * 64), "behind"),
)
STORED = StoredHistory(
    PackedIds.of(["a", "", "é"]),
    np.array([3, 2, 1]),
    np.ones(3, np.float32),
    again=frozenset({"é"}),
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, PackedIds):
        return list(one) == list(other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def message(**changes: object) -> shard_pb2.FindCandidatesRequest:
    sent = codec.request_to_proto(REQUEST, "default", "s1", 3, (4, 5))
    for name, value in changes.items():
        if name in ("generators", "also"):
            getattr(sent, name)[:] = value
        else:
            setattr(sent, name, value)
    return sent


NOTHING = ScoredRows(np.empty(0, np.int64), np.empty(0, np.float32))


@pytest.mark.parametrize(
    "found", [FOUND, NO_CANDIDATES, NO_CANDIDATES._replace(scored=[NOTHING], reasons=[()])]
)
def test_candidates_survive(found: ShardCandidates) -> None:
    sent = codec.candidates_to_proto(found).SerializeToString()
    received = codec.candidates_from_proto(shard_pb2.FindCandidatesResponse.FromString(sent))
    for name, one, other in zip(found._fields, found, received, strict=True):
        if name != "columns" or found.columns.size:
            assert same(one, other), name
    assert received.columns.shape[1] == len(found.numbers)


@pytest.mark.parametrize(
    "history",
    [NO_HISTORY, STORED],
)
def test_a_history_survives(history: StoredHistory) -> None:
    sent = codec.history_to_proto(history).SerializeToString()
    received = codec.history_from_proto(shard_pb2.ReadHistoryResponse.FromString(sent))
    assert same(received, history)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"keys": b"1234567"}, "keys has 7 bytes; whole numbers of 8 bytes"),
        ({"keys": b""}, "a history has 0 keys, 2 times and 2 weights"),
        ({"keys": bytes(8 * (codec.MAX_EVENTS + 1))}, "at most 16384"),
        ({"hidden": bytes(8 * (codec.MAX_HIDDEN + 1))}, "hidden has .* at most 65536"),
        ({"reasons_for": bytes(8 * (codec.MAX_FOUND + 1))}, "reasons_for has"),
        ({"among": bytes(8 * (codec.MAX_FOUND + 1))}, "among has .* at most 16384"),
        ({"weights": np.array([1, np.nan], "<f4").tobytes()}, "finite and above 0"),
        ({"weights": np.array([1, np.inf], "<f4").tobytes()}, "finite and above 0"),
        ({"weights": np.array([1, 0], "<f4").tobytes()}, "finite and above 0"),
        ({"generators": []}, "0 generators; 1..8"),
        ({"generators": ["counts"] * 9}, "9 generators; 1..8"),
        ({"most": codec.MAX_FOUND + 1}, "most is 16385"),
        ({"also": [3]}, "names a shard twice"),
        ({"also": [4, 4]}, "names a shard twice"),
        ({"also": list(range(100, 164))}, "more than 63"),
        ({"min_watermark": b"x"}, "watermark"),
    ],
)
def test_a_malformed_request_is_refused_by_the_field(
    changes: dict[str, object], wrong: str
) -> None:
    with pytest.raises(InvalidRequest, match=wrong):
        codec.request_from_proto(message(**changes))


def test_candidates_that_do_not_fit_together_are_the_fault_of_the_shard() -> None:
    sent = codec.candidates_to_proto(FOUND)
    sent.columns = sent.columns[:-4]
    with pytest.raises(InternalError, match="a shard sent malformed candidates"):
        codec.candidates_from_proto(sent)
    sent = codec.candidates_to_proto(FOUND)
    sent.levels += b"x"
    with pytest.raises(InternalError, match="malformed candidates"):
        codec.candidates_from_proto(sent)
