"""A personal search: the order by hand, its reasons, and nothing of one user for another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline import contract as c
from nearline.errors import InvalidRequest, ShardsUnavailable
from retrieval.behaviour.item_keys import keys_of
from retrieval.protocols.candidates import KeyedHistory
from retrieval.recommend.user_profile import history_of_items
from retrieval.search import personal
from retrieval.search.collection import ServedCollection
from retrieval.search.personal import (
    CANDIDATES,
    Taste,
    check_personal,
    give_reasons,
    order_by_taste,
)
from retrieval.search.request_context import RequestContext
from tests.retrieval.recommend.small_model import learned

# With "had" go "cap" more and "bag" less; nothing is known of "new".
IDS = ["ant", "bag", "cap", "dot", "had"]
MODEL = learned(IDS, {"had": {"cap": 3.0, "bag": 1.0}}, dict.fromkeys(IDS, 1.0))
HAD = history_of_items(["had"])


def collection() -> ServedCollection:
    served: Any = SimpleNamespace(
        name="default", learned=MODEL, local_behaviour=MODEL.local, shards=()
    )
    return cast(ServedCollection, served)


def hits(scores: dict[str, float]) -> list[tuple[int, c.Hit]]:
    return [(0, c.Hit(id=one, score=score)) for one, score in scores.items()]


async def ordered(
    scores: dict[str, float], weight: float, history: KeyedHistory = HAD
) -> tuple[list[tuple[int, c.Hit]], frozenset[str]]:
    return await order_by_taste(
        collection(), hits(scores), Taste(history, weight), RequestContext()
    )


def by_hand(found: dict[str, float], taste: dict[str, float], weight: float) -> list[str]:
    def standard(values: dict[str, float]) -> dict[str, float]:
        mean = sum(values.values()) / len(values)
        spread = (sum((one - mean) ** 2 for one in values.values()) / len(values)) ** 0.5
        return {name: (one - mean) / (spread or 1.0) for name, one in values.items()}

    first, second = standard(found), standard({one: taste.get(one, 0.0) for one in found})
    return sorted(found, key=lambda one: -(first[one] + weight * second[one]))


# Of two scored items, the common scale gives the better 3 and the other 1; see `blend_scores`.
TASTE = {"cap": 3.0, "bag": 1.0}
FOUND = {"ant": 1.0, "bag": 0.9, "dot": 0.8, "cap": 0.55, "new": 0.3}


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.6, 1.0])
async def test_the_order_is_that_of_both_standardised_scores(weight: float) -> None:
    found, risen = await ordered(FOUND, weight)
    ids = [hit.id for _, hit in found]
    assert ids == by_hand(FOUND, TASTE, weight)
    # Scores stay in their places, and what rose is told.
    assert [hit.score for _, hit in found] == list(FOUND.values())
    before = list(FOUND)
    assert risen == {one for one in ids if ids.index(one) < before.index(one)}


@given(
    st.dictionaries(st.sampled_from([*IDS[:4], "new"]), st.floats(-1, 1), min_size=2),
    st.floats(0.01, 1),
)
def test_a_personal_order_has_the_same_hits_and_scores(
    scores: dict[str, float], weight: float
) -> None:
    best_first = dict(sorted(scores.items(), key=lambda one: -one[1]))
    found, _ = asyncio.run(ordered(best_first, weight))
    assert {hit.id for _, hit in found} == set(scores)
    assert [hit.score for _, hit in found] == list(best_first.values())


@pytest.mark.parametrize("history", [["never heard of"], ["ant"]])
async def test_a_history_that_says_nothing_leaves_the_order(history: list[str]) -> None:
    found, risen = await ordered({one: FOUND[one] for one in FOUND if one != "ant"}, 1.0,
                          history_of_items(history))  # fmt: skip
    assert [hit.id for _, hit in found] == [one for one in FOUND if one != "ant"]
    assert not risen


async def test_only_the_best_hundred_are_compared() -> None:
    many = {f"x{number:03}": 1.0 - number / 1_000 for number in range(CANDIDATES)}
    found, _ = await ordered(many | {"bag": 0.2, "cap": 0.1}, 1.0)
    assert [hit.id for _, hit in found] == [*many, "bag", "cap"]


async def test_hits_after_the_best_hundred_keep_their_places() -> None:
    many = {f"x{number:03}": 0.8 - number / 1_000 for number in range(148)}
    found, _ = await ordered({"bag": 1.0, "cap": 0.9} | many, 1.0)
    assert [hit.id for _, hit in found] == ["cap", "bag", *many]


async def test_hits_that_rose_say_why() -> None:
    found, risen = await ordered(FOUND, 1.0)
    await give_reasons(collection(), found, risen, Taste(HAD, 1.0), RequestContext())
    reasons = {hit.id: tuple(hit.reasons) for _, hit in found}
    assert reasons == {"cap": ("because:had",), "ant": (), "bag": (), "dot": (), "new": ()}


async def test_models_that_do_not_answer_leave_the_order_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        raise ShardsUnavailable("no shard answers")

    monkeypatch.setattr(personal, "score_candidates", fail)
    context = RequestContext()
    found, risen = await order_by_taste(collection(), hits(FOUND), Taste(HAD, 1.0), context)
    assert [hit.id for _, hit in found] == list(FOUND) and not risen
    assert context.reduced.endswith("not personal: no shard answers")


async def test_models_that_hang_cost_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(personal, "score_candidates", hang)
    now = asyncio.get_running_loop().time()
    context = RequestContext(deadline=now + 0.2)
    found, _ = await order_by_taste(collection(), hits(FOUND), Taste(HAD, 1.0), context)
    assert [hit.id for _, hit in found] == list(FOUND)
    assert asyncio.get_running_loop().time() < now + 0.2 and "too long" in context.reduced


@pytest.mark.parametrize(
    ("queries", "options", "remedy"),
    [
        (1, {"personal": 1.5, "user_id": "u"}, r"0\.\.1 is allowed"),
        (1, {"personal": float("nan"), "user_id": "u"}, r"0\.\.1 is allowed"),
        (1, {"personal": 0.5}, "set options.user_id or options.session_id"),
        (2, {"personal": 0.5, "user_id": "u"}, "one by one"),
        (1, {"personal": 0.5, "user_id": "u", "grouping": c.Grouping("a")}, "without grouping"),
        (1, {"session_id": "s" * 513}, "at most 512 bytes"),
    ],
)
def test_a_search_that_cannot_be_personal_is_refused(
    queries: int, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(InvalidRequest, match=remedy):
        check_personal(queries, c.SearchOptions(**options))


def test_keys_of_hits_are_found_alone() -> None:
    assert MODEL.local is not None
    request = personal._request(Taste(HAD, 1.0), 9)._replace(among=keys_of(["cap", "dot", "new"]))
    found = MODEL.local.find(request)
    assert list(found.ids) == ["cap"] and not np.isnan(found.scored[1].scores).any()
