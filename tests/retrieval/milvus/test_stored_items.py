"""Items from rows, and batches of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import given, strategies as st

from nearline.contract import PayloadField
from retrieval.milvus.layout import SEPARATOR, make_key
from retrieval.milvus.reader import MilvusReader, ReadContext, in_batches
from retrieval.milvus.rows import make_rows
from retrieval.milvus.stored_items import StoredRows, _before_separator, join_text
from retrieval.protocols.shard import ItemsRequest

TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
IDS = st.text(st.characters(exclude_characters="\0\1", codec="utf-8"), min_size=1, max_size=4)


@given(text=TEXTS, cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1))
def test_chunks_give_the_whole_text(text: str, cuts: list[tuple[int, int]]) -> None:
    bounds = np.array(
        sorted((min(a, b, len(text)), min(max(a, b), len(text))) for a, b in cuts), np.int64
    )
    rows = make_rows(
        "a",
        "",
        text,
        {},
        version=0,
        expires=None,
        bounds=bounds,
        vectors=np.zeros((len(bounds), 1), np.float32),
        kinds={},
        analyser=None,
    )
    assert join_text(rows) == text


@given(ids=st.lists(IDS, unique=True), after=st.text(max_size=4))
def test_keys_sort_by_id_and_pages_start_after_the_given_id(ids: list[str], after: str) -> None:
    keys = sorted(make_key(one, chunk) for one in ids for chunk in (0, 1))
    assert keys == [make_key(one, chunk) for one in sorted(ids) for chunk in (0, 1)]
    begun = _before_separator(after)
    least = begun + chr(ord(SEPARATOR) + 1) if begun else ""
    following = {key.split(SEPARATOR)[0] for key in keys if key > least}
    assert following == {one for one in ids if one > after}


def test_batches_of_ids_are_bounded() -> None:
    ids = [f"d{number}" for number in range(600)]
    batches = list(in_batches(ids))
    assert [len(batch) for batch in batches] == [256, 256, 88]
    assert [one for batch in batches for one in batch] == ids
    large = ["é" * 250] * 100
    assert {sum(len(one.encode()) for one in batch) <= 16 << 10 for batch in in_batches(large)} == {
        True
    }
    assert list(in_batches(["x" * 20_000, "y"])) == [["x" * 20_000], ["y"]]
    assert list(in_batches([])) == []


class Rows:
    """A Milvus client that returns the same rows for every query."""

    outage = ""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = sorted(rows, key=lambda row: str(row["key"]))

    async def query(self, *asked: object, **more: object) -> Sequence[Mapping[str, Any]]:
        return self._rows


async def test_leftover_chunks_of_a_replaced_document_are_ignored() -> None:
    def rows(text: str, version: int, chunks: int) -> list[dict[str, Any]]:
        cuts = np.linspace(0, len(text), chunks + 1).astype(np.int64)
        return make_rows(
            "a",
            "",
            text,
            {},
            version=version,
            expires=None,
            bounds=np.stack((cuts[:-1], cuts[1:]), axis=1),
            vectors=np.full((chunks, 2), version, np.float32),
            kinds={},
            analyser=None,
        )

    async def read(found: Sequence[Mapping[str, Any]]) -> list[str]:
        reading = MilvusReader(Rows(found), "c", ReadContext(), {})  # type: ignore[arg-type]
        payload = frozenset({PayloadField.TEXT})
        items = await StoredRows(reading, unit_length=False).fetch(
            ItemsRequest(["a"], payload), None
        )
        return [item.text for item in items if item is not None]

    old, new = rows("of the one before", 9, 3), rows("new", 2, 1)
    # The version of a new log is less than that of the log before.
    assert await read([*new, *old[1:]]) == ["new"]
    assert await read(old[1:]) == [], "its new first chunk does not match a filter"
