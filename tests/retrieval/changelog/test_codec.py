"""Encoding and digests of changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.errors import SnapshotCorrupt
from nearline.internal.v1 import change_pb2
from retrieval.changelog.codec import content_digest, decode_change, encode_change
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite

TEXTS = st.text(max_size=20)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))
SCALARS = st.one_of(
    TEXTS,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    TIMES,
    st.none(),
)
CHANGES = st.builds(
    Change,
    document_id=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(ChangeKind),
    title=TEXTS,
    text=TEXTS,
    attributes=st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=3),
    bounds=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3).map(
        lambda pairs: np.array(pairs, np.int64).reshape(-1, 2)
    ),
    vectors=st.dictionaries(
        TEXTS,
        st.lists(st.floats(width=32, allow_nan=False), min_size=6, max_size=6).map(
            lambda numbers: np.array(numbers, np.float32).reshape(2, 3)
        ),
        max_size=2,
    ),
    expires=st.none() | TIMES,
)


@given(CHANGES)
def test_encoded_changes_decode_to_the_same_change(change: Change) -> None:
    back = decode_change(encode_change(change))
    for name in ("document_id", "kind", "title", "text", "attributes", "expires"):
        assert getattr(back, name) == getattr(change, name)
    assert back.bounds.dtype == np.dtype(np.int64)
    assert back.bounds.shape == change.bounds.shape
    assert (back.bounds == change.bounds).all()
    assert back.vectors.keys() == change.vectors.keys()
    for name, matrix in change.vectors.items():
        assert back.vectors[name].dtype == np.float32
        # To the bit, so that a replay gives the very scores of the first time.
        assert back.vectors[name].tobytes() == matrix.tobytes()


def test_an_empty_matrix_keeps_its_dimension() -> None:
    change = Change(
        document_id="a", kind=ChangeKind.UPSERT, vectors={"f": np.empty((0, 7), np.float32)}
    )
    assert decode_change(encode_change(change)).vectors["f"].shape == (0, 7)


def test_times_of_other_time_zones_are_the_same_instant() -> None:
    east = datetime(2026, 11, 25, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert (
        decode_change(
            encode_change(Change(document_id="a", kind=ChangeKind.UPSERT, expires=east))
        ).expires
        == east
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff",
        change_pb2.Change(document_id="a", kind=99).SerializeToString(),  # type: ignore[arg-type]
        change_pb2.Change(kind=change_pb2.Change.KIND_DELETE).SerializeToString(),
        change_pb2.Change(
            document_id="a", kind=change_pb2.Change.KIND_UPSERT, starts=[1]
        ).SerializeToString(),
    ],
)
def test_bytes_from_elsewhere_are_rejected(data: bytes) -> None:
    with pytest.raises(SnapshotCorrupt, match="use the version that wrote it"):
        decode_change(data)


def test_a_digest_does_not_depend_on_the_order_of_many_attributes() -> None:
    names = [f"attribute{number}" for number in range(100)]
    digests = {
        content_digest(
            [
                ChangeWrite(
                    Change(
                        document_id="a",
                        kind=ChangeKind.UPSERT,
                        attributes=dict.fromkeys(names[at:] + names[:at], 1),
                    )
                )
            ]
        )
        for at in range(0, 100, 10)
    }
    assert len(digests) == 1


def test_a_digest_covers_exactly_the_request_of_the_user() -> None:
    change = Change(
        document_id="a",
        kind=ChangeKind.UPSERT,
        text="one",
        vectors={"model": np.ones((1, 2), np.float32)},
        attributes={"b": 1, "a": 2},
    )
    digest = content_digest([ChangeWrite(change)])
    model = replace(change, vectors={"model": np.zeros((1, 2), np.float32)})
    order = replace(change, attributes={"a": 2, "b": 1})
    for same in (
        ChangeWrite(model),
        ChangeWrite(order),
        ChangeWrite(change, base_version=3, base_position=9),
    ):
        assert content_digest([same]) == digest
    brought = replace(change, vectors={"": np.ones((1, 2), np.float32)})
    other = ChangeWrite(replace(brought, vectors={"": np.zeros((1, 2), np.float32)}))
    for another in (
        [ChangeWrite(replace(change, text="two"))],
        [ChangeWrite(replace(change, kind=ChangeKind.DELETE))],
        [ChangeWrite(change, if_version=0)],
        [ChangeWrite(change, as_of_us=0)],
        [ChangeWrite(change), ChangeWrite(change)],
        [ChangeWrite(brought)],
        [other],
    ):
        assert content_digest(another) != digest
    assert content_digest([ChangeWrite(brought)]) != content_digest([other])
