"""`SortedIds` contains its ids and finds their positions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, strategies as st

from retrieval.index.sorted_ids import SortedIds, index_of

# Letters of one to four bytes, so that the order of bytes could differ from that of the text.
IDS = st.sets(st.text("aé€𝒳\x7f", max_size=4), max_size=30).map(sorted)


@given(IDS, st.text("aé€𝒳\x7f", max_size=4), st.integers(0, 5), st.integers(0, 30))
def test_ids_are_found(ids: list[str], other: str, first: int, size: int) -> None:
    array = pa.array(ids, pa.string()).slice(first, size)
    ids = ids[first : first + size]
    found = SortedIds(array)
    assert list(found) == ids
    assert found[1:3] == ids[1:3]
    assert found.many(np.arange(len(ids))[::2]) == ids[::2]
    for one in (*ids, other):
        place = ids.index(one) if one in ids else None
        assert index_of(found, one) == index_of(ids, one) == place
