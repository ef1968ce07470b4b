"""One brand does not fill a page, checked by counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.contract import Audience, PayloadField, RecommendOptions
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.recommend.brand_spread import spread
from retrieval.recommend.policies import Policies, Policy, Quota
from retrieval.recommend.selection import Candidate
from tests.retrieval.recommend.served_lists import served_lists
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.small_snapshots import Document, write_snapshot

BRAND = snapshot_pb2.AttributeField(name="brand", kind=snapshot_pb2.AttributeField.Kind.KIND_STRING)
# The more popular the lower; the first twelve are of one brand.
IDS = [f"i{number:02}" for number in range(40)]
BRANDS = {one: "acme" if at < 12 else f"brand{at % 9}" for at, one in enumerate(IDS)}
POPULARITY = {one: 100.0 - at for at, one in enumerate(IDS)}


def of_brands(brands: list[object]) -> list[Candidate]:
    return [
        Candidate(str(at), -float(at), {"brand": brand})  # type: ignore[dict-item]
        for at, brand in enumerate(brands)
    ]


def order(brands: list[object]) -> list[int]:
    return [int(one.id) for one in spread(of_brands(brands), "brand")]


def test_the_fourth_of_a_brand_comes_on_the_next_page() -> None:
    assert order([*"aaaa", *"bcdefgh", *"ijk"]) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 3, 11, 12, 13]
    # Nothing else is left.
    assert order([*"aaaaab"]) == [0, 1, 2, 5, 3, 4]
    # An item of two brands counts for both, one without a brand for none.
    assert order([["a", "b"], "a", "a", "b", "b", "b", "a", None, None, None]) == [
        *(0, 1, 2, 3, 4, 7, 8, 9, 5, 6)
    ]


@given(st.lists(st.sampled_from([None, *"abcdefghi"]), max_size=80))
def test_pages_hold_three_of_a_brand_while_others_are_left(brands: list[object]) -> None:
    found = order(brands)
    assert sorted(found) == list(range(len(brands)))
    for start in range(0, len(found), 10):
        page, later = found[start : start + 10], found[start + 10 :]
        counts = Counter(brands[at] for at in page if brands[at] is not None)
        many = {brand for brand, count in counts.items() if count > 3}
        if many:
            # Each item that comes later would be one too many, too.
            assert all(counts[brands[at]] >= 3 for at in later if brands[at] is not None)
            assert all(brands[at] is not None for at in later)


@pytest.mark.parametrize("cached", [False, True])
async def test_a_page_of_a_shop_holds_three_of_a_brand(tmp_path: Path, *, cached: bool) -> None:
    documents = [
        Document(id=one, vectors=np.ones((1, 2), np.float32), attributes={"brand": BRANDS[one]})
        for one in IDS
    ]
    write_snapshot(tmp_path, documents, fields=[BRAND])
    model = learned(IDS, {"i39": {one: 50.0 - at for at, one in enumerate(IDS[:39])}}, POPULARITY)
    says = Policy(name="says", version=1, quotas=(Quota("brand", 30),))
    plain = Policy(name="home", version=1)
    policies = Policies([plain, says])
    async with served_lists(Store(tmp_path), policies, model, cached=cached) as service:

        async def numbers(audience: Audience, n: int = 10, **options: object) -> list[int]:
            asked = RecommendOptions(n=n, **options)  # type: ignore[arg-type]
            reply = await service.recommend(audience, asked)
            for one in reply.recommendations:
                # Read for the rule, but not asked for.
                assert (one.hit.attributes is not None) == (
                    PayloadField.ATTRIBUTES in asked.payload
                )
            return [int(one.hit.id[1:]) for one in reply.recommendations]

        first = [0, 1, 2, *range(12, 19)]
        for audience in (
            Audience(),
            Audience(item_ids=("i39",)),
            Audience(item_ids=("i39", "zzz")),
        ):
            assert await numbers(audience) == first
        assert await numbers(Audience(), payload=frozenset({PayloadField.ATTRIBUTES})) == first
        # Of one brand alone, the page is full all the same.
        others = tuple(one for one in IDS if BRANDS[one] != "acme")
        assert await numbers(Audience(), exclude_ids=others) == list(range(10))
        # A policy that says something is authoritative, and so is a request.
        assert await numbers(Audience(surface="says")) == list(range(10))
        assert await numbers(Audience(), diversity=0.0) == first
        # The story of a list names what was moved.
        asked = RecommendOptions(n=10, explain=True)
        story = (await service.recommend(Audience(), asked)).story
        assert story[0] == "candidates: what most users had"
        # A cached list of thirty has only nine of them.
        assert story[1:] == [f"moved down, of one brand: {6 if cached else 7} (i03, i04, i05, …)"]
