"""The hits and the expiry of a pool of candidates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import pytest

from nearline.contract import Hit, Item, PayloadField
from retrieval.recommend.candidate_pool import CandidatePool, CandidateQuery
from retrieval.recommend.ranking import Block

EARLY, LATE = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
VECTOR = np.ones(2, np.float32)


def item(item_id: str = "a", expires: datetime | None = None) -> Item:
    return Item(
        id=item_id,
        title="Title",
        text="text",
        attributes={"brand": "x"},
        vector=VECTOR,
        expires=expires,
    )


@pytest.mark.parametrize(
    ("expiries", "first"),
    [
        ([], None),
        ([None, None], None),
        ([LATE], LATE),
        ([None, LATE, EARLY, None], EARLY),
        ([EARLY, LATE], EARLY),
    ],
)
def test_a_pool_expires_with_the_first_of_its_candidates(
    expiries: list[datetime | None], first: datetime | None
) -> None:
    pool = CandidatePool(frozenset())
    for number, expires in enumerate(expiries):
        pool.add(item(str(number), expires), 1.0)
    assert pool.expires == first
    assert [one.id for one in pool.candidates] == [str(n) for n in range(len(expiries))]


@pytest.mark.parametrize("field", [None, *PayloadField])
def test_a_hit_has_the_requested_fields_only_and_a_candidate_those_of_the_rules(
    field: PayloadField | None,
) -> None:
    pool = CandidatePool(frozenset() if field is None else frozenset({field}))
    pool.add(item(), 0.5)
    (candidate,) = pool.candidates
    assert (candidate.id, candidate.score, candidate.attributes) == ("a", 0.5, {"brand": "x"})
    assert candidate.vector is VECTOR
    hit = pool.hits["a"]
    assert (hit.id, hit.score) == ("a", 0.5)
    found = {
        PayloadField.TITLE: hit.title,
        PayloadField.TEXT: hit.text,
        PayloadField.ATTRIBUTES: hit.attributes,
        PayloadField.VECTOR: hit.vector,
    }
    # Lists show whole items, which are below no heading.
    shown = {field} - {None, PayloadField.SECTION}
    assert {one for one, value in found.items() if value is not None} == shown and not hit.section
    assert hit.end == (4 if field is PayloadField.TEXT else 0)


@pytest.mark.parametrize("requested", [False, True])
def test_attributes_that_only_the_rules_read_are_left_out_of_a_hit(requested: bool) -> None:
    pool = CandidatePool(frozenset({PayloadField.ATTRIBUTES} if requested else ()))
    pool.add_hit(Hit(id="a", score=0.5, attributes={"brand": "x"}))
    assert pool.candidates[0].attributes == {"brand": "x"}
    assert pool.hits["a"].attributes == ({"brand": "x"} if requested else None)


class FewMatch(CandidatePool):
    """Of the items that it reads, every tenth matches. reads: Number of items of each read."""

    def __init__(self) -> None:
        super().__init__(frozenset())
        self.reads: list[int] = []

    async def read(self, query: CandidateQuery, scored: Sequence[tuple[str, float]]) -> None:
        self.reads.append(len(scored))
        for item_id, score in scored:
            if int(item_id) % 10 == 0:
                self.add(item(item_id), score)


@pytest.mark.parametrize(
    ("sizes", "depth", "reads", "found"),
    [
        ([300], 1, [1], 1),
        ([300], 3, [3, 12, 48], 7),
        ([300], 10, [10, 40, 160], 21),
        ([30, 300], 10, [10, 20, 7, 28, 112], 18),
        ([30], 10, [10, 20], 3),
        ([0, 300], 1, [1], 1),
    ],
)
async def test_ever_more_items_are_read_while_few_match(
    sizes: list[int], depth: int, reads: list[int], found: int
) -> None:
    async def blocks() -> AsyncIterator[Block]:
        for numbers in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]):
            yield Block([str(one) for one in numbers], -numbers.astype(np.float32))

    pool = FewMatch()
    await pool.fill(cast(Any, None), blocks(), depth)
    assert pool.reads == reads
    assert [one.id for one in pool.candidates] == [str(10 * n) for n in range(found)]
    assert [one.score for one in pool.candidates] == [-10.0 * n for n in range(found)]
