"""Lists of a service over a snapshot in this process, with expectations computed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.contract import Audience, Cause, RecommendOptions
from nearline.errors import InvalidRequest, NotFound, NotReady, Unsupported
from nearline.filters import Equals
from nearline.store.snapshot import Store
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.tables import REPEAT_RATE
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols.candidates import PackedIds, StoredHistory
from retrieval.protocols.shard import ItemsRequest, ShardItems
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.policies import Policies, Policy, SeenRule, default_policies
from retrieval.recommend.selection import Selection
from retrieval.recommend.service import RecommendationService
from retrieval.recommend.user_profile import build_profile
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.users.records import MadeUp, UserEvent, UserState
from tests.retrieval.fakes import FailingShard
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.small_snapshots import Document, write_snapshot

IDS = ["a", "b", "c", "d", "e", "f", "g", "new"]
# By id: what goes with it. "g" goes with nothing; nobody has had "new" yet.
GOES = {
    "a": {"b": 5.0, "c": 4.0, "d": 1.0},
    "b": {"a": 5.0, "c": 3.0},
    "c": {"a": 4.0, "b": 3.0, "d": 2.0},
    "d": {"e": 6.0, "a": 1.0},
}
POPULARITY = {"f": 9.0, "a": 8.0, "b": 7.0, "c": 6.0, "d": 5.0, "e": 4.0, "g": 1.0}
HAD = {"ann": [("a", 2_000_000), ("g", 1_000_000)]}
HOME = Audience()


def directions(angle: dict[str, float]) -> dict[str, np.ndarray]:
    return {one: np.array([np.cos(at), np.sin(at)], np.float32) for one, at in angle.items()}


VECTORS = directions({one: number * 0.15 for number, one in enumerate(IDS)})


@contextlib.asynccontextmanager
async def recommender(
    folder: Path,
    known: BehaviourModel | None,
    policies: Policies | None = None,
    states: object = None,
    expires: Mapping[str, int] | None = None,
) -> AsyncIterator[RecommendationService]:
    """Yields a service. expires: By item, microseconds since 1970; others never expire."""
    documents = [
        Document(
            id=one,
            vectors=VECTORS[one][None],
            title=one.upper(),
            text="x" * 10,
            expires=(expires or {}).get(one),
        )
        for one in IDS
    ]
    write_snapshot(folder, documents, shards=3)
    shards = LocalShardProvider(Store(folder), 1)
    collections = ServedCollections()
    try:
        (snapshot,) = read_current_snapshots(Store(folder), ())
        collections.serve(ServedCollection(snapshot, await shards.prepare(snapshot), known))
        yield RecommendationService(
            collections,
            policies or default_policies(),
            states,  # type: ignore[arg-type]
        )
    finally:
        await shards.close()


def ids(reply: c.RecommendReply) -> list[str]:
    return [one.hit.id for one in reply.recommendations]


@pytest.fixture
def known() -> BehaviourModel:
    factors = {"new": (1.0, 0.0), "a": (1.0, 0.1), "g": (0.0, 1.0), "f": (0.1, 0.2)}
    return learned(IDS, GOES, POPULARITY, HAD, factors)


async def test_an_anonymous_visitor_gets_popular_items(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        reply = await service.recommend(HOME, RecommendOptions(n=3))
        assert ids(reply) == ["f", "a", "b"]
        assert reply.info.served_by == c.ServedBy(rung="popular")
        assert reply.policy.startswith("home/0/")
        assert reply.info.list_id and reply.info.coverage.shards_answered == 3


async def test_items_that_go_with_an_item_come_first_then_the_rest(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        about = Audience(item_ids=("a",), surface="item_page")
        reply = await service.recommend(about, RecommendOptions(n=7))
        assert ids(reply)[:3] == ["b", "c", "d"]
        assert [one.hit.score for one in reply.recommendations[:3]] == [5.0, 4.0, 1.0]
        # The rest by the factors of somebody who had "a"; no score is above those before.
        assert ids(reply)[3] == "new" and set(ids(reply)[3:]) == {"e", "f", "g", "new"}
        assert all(one.hit.score <= 0 for one in reply.recommendations[3:])
        assert reply.info.served_by == c.ServedBy()


async def test_a_user_of_the_snapshot_is_not_shown_items_they_had(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        reply = await service.recommend(Audience(user_id="ann"), RecommendOptions(n=10))
        assert ids(reply)[:3] == ["b", "c", "d"]
        assert set(ids(reply)) == set(IDS) - {"a", "g"}


async def test_socks_are_listed_again_and_a_fridge_is_not(tmp_path: Path) -> None:
    # Half of its users had "a" again, a tenth of them "g": ann had both.
    rates = {REPEAT_RATE: {"a": 0.5, "g": 0.1}}
    known = learned(IDS, GOES, POPULARITY, HAD, of_items=rates)
    ann = Audience(user_id="ann")
    async with recommender(tmp_path, known) as service:
        asked = RecommendOptions(n=10, explain=True, why_not_id="g")
        reply = await service.recommend(ann, asked)
        assert set(ids(reply)) == set(IDS) - {"g"}
        (again,) = (one for one in reply.recommendations if one.hit.id == "a")
        assert again.reasons[0] == "again"
        assert reply.why_not is not None and reply.why_not.cause is Cause.SEEN
        assert reply.story == [
            "candidates: what suits the history of the user",
            "left out, as the user had them: 1 (g)",
        ]
        # Also where the list is the same for everyone.
        trending = await service.recommend(replace(ann, surface="trending"), asked)
        assert set(ids(trending)) == set(IDS) - {"g"}
    says = Policies([Policy(name="home", version=1, seen=SeenRule())])
    async with recommender(tmp_path / "says", known, says) as service:
        reply = await service.recommend(ann, RecommendOptions(n=10))
        assert set(ids(reply)) == set(IDS) - {"a", "g"}


def test_what_makes_an_item_one_that_the_user_had() -> None:
    trained = StoredHistory(
        PackedIds.of(["milk", "tv"]), np.array([2, 1]), np.ones(2, "f4"), again=frozenset({"milk"})
    )
    home = default_policies().for_surface("home")

    def hidden(weights: Mapping[str, float], *events: tuple[str, str]) -> set[str]:
        recorded = [UserEvent(one, 9_000_000, kind, None) for one, kind in events]
        return {*build_profile(UserState(recorded, 0), trained, weights).seen(home, 0)}

    # Without weights of kinds, every interaction counts.
    assert hidden({}, ("fridge", "view")) == {"fridge", "tv"}
    weights = {"purchase": 5.0, "cart": 2.0}
    assert hidden(weights, ("fridge", "view"), ("lamp", "cart")) == {"tv"}
    assert hidden(weights, ("fridge", "purchase"), ("milk", "purchase")) == {"fridge", "tv"}
    # If views weigh as much as purchases, they may be all that users repeat.
    assert hidden({}, ("milk", "purchase")) == {"tv"}
    assert hidden({}, ("milk", "purchase"), ("milk", "view")) == {"milk", "tv"}


async def test_a_surface_with_repeats_shows_items_that_the_user_had(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        cart = Audience(user_id="ann", surface="cart")
        reply = await service.recommend(cart, RecommendOptions(n=3, explain=True))
        assert "a" in ids(reply)
        (again,) = (one for one in reply.recommendations if one.hit.id == "a")
        assert again.reasons[0] == "again"


async def test_reasons_name_the_items_of_the_history_that_speak_for_an_item(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        about = Audience(item_ids=("a", "c"))
        reply = await service.recommend(about, RecommendOptions(n=8, explain=True))
        reasons = {one.hit.id: one.reasons for one in reply.recommendations}
        # b: 5 of 8 by a, 3 by c. d: 1 of 3 by a, 2 by c.
        assert reasons["b"] == ("because:a", "because:c")
        assert reasons["d"] == ("because:c", "because:a")
        assert reasons["new"] == ("new",)
        assert reasons["f"] == ("popular",)


async def test_an_item_without_behaviour_gets_similar_items(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        reply = await service.recommend(Audience(item_ids=("new",)), RecommendOptions(n=2))
        # The vectors turn by 0.15 from one to the next.
        assert ids(reply) == ["g", "f"]
        assert reply.recommendations[0].hit.score == pytest.approx(np.cos(0.15), abs=1e-6)
        assert reply.info.served_by.rung == "content"


async def test_without_interactions_the_reasons_are_the_items_that_the_list_is_similar_to(
    tmp_path: Path,
) -> None:
    async with recommender(tmp_path, None) as service:
        about = Audience(item_ids=("new", "g"))
        reply = await service.recommend(about, RecommendOptions(n=2, explain=True))
        assert [one.reasons for one in reply.recommendations] == [("because:new", "because:g")] * 2
        assert reply.info.served_by.rung == "content"
        plain = await service.recommend(about, RecommendOptions(n=2))
        assert [one.reasons for one in plain.recommendations] == [(), ()]
        # Nothing speaks for items in no order.
        reply = await service.recommend(Audience(), RecommendOptions(n=2, explain=True))
        assert [one.reasons for one in reply.recommendations] == [(), ()]


async def test_unknown_items_are_reported_and_popular_items_are_listed(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        about = Audience(item_ids=("nothing",), user_id="nobody")
        reply = await service.recommend(about, RecommendOptions(n=2))
        assert ids(reply) == ["f", "a"]
        assert [(one.id, one.reason) for one in reply.ignored_ids] == [
            ("nothing", c.IgnoredReason.NOT_FOUND)
        ]
        assert reply.info.served_by.source is c.Source.FALLBACK
        assert reply.info.served_by.rung == "popular"


async def test_without_interactions_there_is_still_an_answer(tmp_path: Path) -> None:
    async with recommender(tmp_path, None) as service:
        reply = await service.recommend(HOME, RecommendOptions(n=3))
        # In the order of digests: e, f, a, c, b, g, d, new. Next to "e", "f" gains 7/16 less half
        # of cos 0.15; then "a" 6/16 less half of cos 0.6.
        assert ids(reply) == ["e", "f", "a"]
        assert reply.info.served_by.rung == "unordered"
        assert "record some" in reply.info.served_by.reason
        reply = await service.recommend(Audience(item_ids=("a",)), RecommendOptions(n=2))
        assert ids(reply) == ["b", "c"]


@pytest.mark.parametrize("surface", ["home", "trending", "buy_again"])
async def test_a_model_of_few_items_makes_no_list_short(tmp_path: Path, surface: str) -> None:
    known = learned(IDS, {}, {"f": 9.0, "a": 8.0})
    cache = CandidateCache(TieredCache(None), {})
    async with recommender(tmp_path, known) as service:
        for cached in (None, cache):
            cached_service = RecommendationService(
                service.collections, default_policies(), cache=cached
            )
            asked = RecommendOptions(n=5, exclude_ids=("a", "c"))
            reply = await cached_service.recommend(Audience(surface=surface), asked)
            assert ids(reply)[0] == "f" and len(set(ids(reply))) == 5
            assert not {"a", "c"} & set(ids(reply))
            scores = [one.hit.score for one in reply.recommendations]
            assert scores == sorted(scores, reverse=True)
    await cache.close()


async def test_the_caller_may_exclude_and_ask_for_payload(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        options = RecommendOptions(
            n=2, exclude_ids=("a", "f"), payload=frozenset({c.PayloadField.TITLE})
        )
        reply = await service.recommend(HOME, options)
        assert [(one.hit.id, one.hit.title) for one in reply.recommendations] == [
            ("b", "B"),
            ("c", "C"),
        ]
        assert reply.recommendations[0].hit.text is None


@pytest.mark.parametrize(
    ("asked", "cause", "rank"),
    [
        ("f", Cause.LISTED, 1),
        ("c", Cause.OUTRANKED, 4),
        ("a", Cause.EXCLUDED, 2),
        ("zzz", Cause.NO_SUCH_ITEM, 0),
    ],
)
async def test_why_not_returns_the_cause_and_the_rank(
    tmp_path: Path, known: BehaviourModel, asked: str, cause: Cause, rank: int
) -> None:
    async with recommender(tmp_path, known) as service:
        options = RecommendOptions(n=2, exclude_ids=("a",), why_not_id=asked)
        why = (await service.recommend(HOME, options)).why_not
        assert why is not None
        assert (why.cause, why.rank, why.id) == (cause, rank, asked)


async def test_why_not_names_items_that_the_user_had(tmp_path: Path, known: BehaviourModel) -> None:
    async with recommender(tmp_path, known) as service:
        options = RecommendOptions(n=2, why_not_id="g")
        why = (await service.recommend(Audience(user_id="ann"), options)).why_not
        assert why is not None and why.cause is Cause.SEEN


async def test_a_policy_blocks_pins_and_limits(tmp_path: Path, known: BehaviourModel) -> None:
    policy = Policy(
        name="home", version=1, pinned=("e", "gone"), blocked=frozenset({"f"}), seen=SeenRule()
    )
    async with recommender(tmp_path, known, Policies([policy])) as service:
        options = RecommendOptions(n=3, explain=True, why_not_id="f")
        reply = await service.recommend(HOME, options)
        assert ids(reply) == ["e", "a", "b"]
        assert reply.recommendations[0].reasons[0] == "pinned"
        assert reply.why_not is not None and reply.why_not.cause is Cause.BLOCKED


async def test_items_that_the_model_does_not_know_are_explained_without_it(tmp_path: Path) -> None:
    # "d" and "e" were added to the collection after the model was trained.
    goes = {"a": {"b": 5.0}}
    known = learned(["a", "b", "c", "f", "g", "new"], goes, {"a": 2.0, "b": 1.0})
    policy = Policy(name="home", version=1, pinned=("e",))
    async with recommender(tmp_path, known, Policies([policy])) as service:
        options = RecommendOptions(n=2, explain=True, why_not_id="d")
        reply = await service.recommend(HOME, options)
        reasons = {one.hit.id: one.reasons for one in reply.recommendations}
        assert reasons == {"e": ("pinned",), "a": ("popular",)}
        assert reply.why_not is not None
        # The new items follow the two that somebody had.
        assert reply.why_not.cause is Cause.OUTRANKED and 3 <= reply.why_not.rank <= 8
        assert reply.why_not.message.endswith("below the end of the list")


@pytest.mark.parametrize(
    ("audience", "options", "field"),
    [
        (HOME, RecommendOptions(n=0), "n"),
        (HOME, RecommendOptions(n=1_001), "n"),
        (HOME, RecommendOptions(diversity=1.5), "diversity"),
        (HOME, RecommendOptions(exclude_ids=("",)), "exclude_ids"),
        (Audience(surface="hme"), RecommendOptions(), "surface"),
        (Audience(item_ids=("",)), RecommendOptions(), "item_ids"),
        (Audience(item_ids=("x",) * 257), RecommendOptions(), "item_ids"),
        (Audience(user_id="u" * 513), RecommendOptions(), "user_id"),
    ],
)
async def test_a_request_out_of_range_is_refused(
    tmp_path: Path, known: BehaviourModel, audience: Audience, options: RecommendOptions, field: str
) -> None:
    async with recommender(tmp_path, known) as service:
        with pytest.raises(InvalidRequest) as refused:
            await service.recommend(audience, options)
        assert refused.value.field == field


async def test_a_filter_on_an_attribute_that_does_not_exist_is_refused(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        with pytest.raises(InvalidRequest, match="colour"):
            await service.recommend(HOME, RecommendOptions(filter=Equals("colour", "red")))


class _States:
    """Records everything."""

    async def record(
        self, collection: str, interactions: Sequence[c.Interaction], key: str, made_up: MadeUp
    ) -> c.RecordReply:
        return c.RecordReply(len(interactions))


async def test_interactions_with_items_that_do_not_exist_are_counted_apart(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known, states=_States()) as service:
        seen = [c.Interaction(item_id=one, user_id="ann") for one in ("a", "gone", "b", "gone")]
        assert await service.record_interactions(seen) == c.RecordReply(4, 0, 2)
        assert await service.record_interactions(seen[:1]) == c.RecordReply(1)
        # Without time left they are recorded all the same.
        late = await service.record_interactions(seen, timeout_s=1e-6)
        assert late.recorded == 4


@pytest.mark.parametrize(
    ("timeout_s", "at_most_s"),
    # A quarter of the time, and never long.
    [(1.0, 0.25), (60.0, 0.5), (None, 0.5)],
)
async def test_the_lookup_of_items_leaves_time_to_record(
    tmp_path: Path, known: BehaviourModel, timeout_s: float | None, at_most_s: float
) -> None:
    left: list[float] = []

    class Shard(FailingShard):
        async def fetch(
            self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
        ) -> ShardItems:
            assert deadline is not None
            left.append(deadline - asyncio.get_running_loop().time())
            raise self.error

    async with recommender(tmp_path, known, states=_States()) as service:
        (snapshot,) = read_current_snapshots(Store(tmp_path), ())
        shards = [Shard(NotReady("away"))] * 3
        service.collections.serve(ServedCollection(snapshot, shards, known))
        # What no shard tells is not counted as unknown.
        seen = [c.Interaction(item_id="a", user_id="ann")]
        reply = await service.record_interactions(seen, timeout_s=timeout_s)
    assert reply == c.RecordReply(1, 0, 0)
    assert at_most_s / 2 < left[0] <= at_most_s + 1e-6


async def test_unknown_collections_are_rejected_and_recording_needs_redis(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with recommender(tmp_path, known) as service:
        with pytest.raises(NotFound):
            await service.recommend(HOME, collection="other")
        with pytest.raises(Unsupported, match="--redis"):
            await service.record_interactions([c.Interaction(item_id="a", user_id="ann")])


async def test_the_event_loop_turns_while_a_diverse_list_is_selected(
    tmp_path: Path, known: BehaviourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    select, turned = Selection.take_diverse, threading.Event()

    def observed(selection: Selection, *args: Any) -> None:
        loop.call_soon_threadsafe(turned.set)
        assert turned.wait(10), "the event loop stands still"
        select(selection, *args)

    monkeypatch.setattr(Selection, "take_diverse", observed)
    async with recommender(tmp_path, known) as service:
        reply = await service.recommend(HOME, RecommendOptions(n=3, diversity=0.5))
    assert len(ids(reply)) == 3
