"""Vectors on the wire."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from nearline.errors import InvalidRequest
from nearline.v1 import types_pb2
from nearline.vectors import as_matrix, normalise, pack, unpack

matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-1, 1, width=32),
)


@given(matrices)
def test_f32_survives_bit_for_bit(matrix: np.ndarray) -> None:
    assert np.array_equal(unpack(pack(matrix)), matrix)


@given(matrices)
def test_f16_and_i8_survive_to_their_precision(matrix: np.ndarray) -> None:
    half = unpack(pack(matrix, types_pb2.DATA_TYPE_F16))
    byte = unpack(pack(matrix, types_pb2.DATA_TYPE_I8))
    assert np.abs(half - matrix).max() <= 2**-11
    assert np.abs(byte - matrix).max() <= 0.5 / 127 + 1e-6


def test_bytes_are_little_endian_row_after_row() -> None:
    packed = pack(np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert packed.data == np.array([1, 2, 3, 4], dtype="<f4").tobytes()
    assert (packed.dim, packed.dtype) == (2, types_pb2.DATA_TYPE_F32)


@pytest.mark.parametrize(
    "vectors",
    [
        types_pb2.Vectors(data=b"", dim=2),
        types_pb2.Vectors(data=b"1234", dim=0),
        types_pb2.Vectors(data=b"12345", dim=1),
        types_pb2.Vectors(data=b"1234", dim=1, dtype=99),  # type: ignore[arg-type]
    ],
)
def test_bytes_that_are_not_whole_rows_are_refused(vectors: types_pb2.Vectors) -> None:
    with pytest.raises(InvalidRequest) as caught:
        unpack(vectors, "query.vector")
    assert caught.value.field == "query.vector"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_names_its_row(bad: float) -> None:
    with pytest.raises(InvalidRequest, match="vector 1 has"):
        as_matrix(np.array([[1.0, 2.0], [bad, 0.0]]))


def test_normalise_gives_unit_rows_and_refuses_zero() -> None:
    assert np.allclose(normalise(np.array([[3, 4]], np.float32)), [[0.6, 0.8]])
    with pytest.raises(InvalidRequest, match="vector 0 is all zeros"):
        normalise(np.zeros((1, 3), np.float32))
