"""Lists under a filter, over a snapshot that the index builder made."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from index_builder.interactions.records import Interactions
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.contract import Audience, Cause, RecommendOptions
from nearline.errors import InvalidRequest
from nearline.filters import Equals, In
from nearline.store.snapshot import Store
from retrieval.behaviour.behaviour_shard import BehaviourShard
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
)
from retrieval.recommend.policies import Policies
from retrieval.recommend.service import RecommendationService
from retrieval.search import candidates
from retrieval.shards.local_shard import LocalShard
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.retrieval.recommend.served_lists import served_lists

PAGE = Audience(item_ids=("i03",), surface="item_page")


@contextlib.asynccontextmanager
async def recommender(
    folder: Path,
    policies: Policies | None = None,
    items: Sequence[c.Item] = (),
    rows: Interactions | None = None,
    *,
    local: bool = False,
) -> AsyncIterator[RecommendationService]:
    """Yields a service over a build of the walks, or of other items and interactions."""
    store = Store(folder)
    vectors = np.eye(ITEMS, dtype=np.float32)
    items = items or [
        c.Item(id=one, title=one, vector=vectors[at], attributes={"even": at % 2 == 0, "name": one})
        for at, one in enumerate(documents())
    ]
    learning = TrainingOptions(interactions=rows or walks())
    options = BuildOptions(store=str(folder), shards=2, lexical=False, training=learning)
    await build_snapshot(items, options)
    async with served_lists(store, policies, local=local) as service:
        yield service


@pytest.mark.parametrize(("local", "few"), [(False, 5_000), (True, 0), (True, 5_000)])
async def test_only_matching_items_are_listed_in_the_same_order(
    tmp_path: Path, local: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, matches are looked up before, or met on the way.
    monkeypatch.setattr(candidates, "_SELECTIVE", few)
    async with recommender(tmp_path, local=local) as service:
        for audience in (Audience(), PAGE, Audience(user_id="u001")):
            everything = await service.recommend(audience, RecommendOptions(n=ITEMS))
            wanted = [
                one.hit.id for one in everything.recommendations if int(one.hit.id[1:]) % 2 == 0
            ]
            assert len(wanted) >= 1
            for _ in range(2):
                options = RecommendOptions(n=ITEMS, filter=Equals("even", True))
                reply = await service.recommend(audience, options)
                assert [one.hit.id for one in reply.recommendations] == wanted
            one = RecommendOptions(n=5, filter=In("name", (wanted[-1], "nothing")))
            reply = await service.recommend(audience, one)
            assert [one.hit.id for one in reply.recommendations] == [wanted[-1]]
            none = RecommendOptions(n=5, filter=Equals("name", "nothing"))
            assert not (await service.recommend(audience, none)).recommendations


async def test_why_not_names_the_filter(tmp_path: Path) -> None:
    async with recommender(tmp_path) as service:
        options = RecommendOptions(n=3, filter=Equals("even", True), why_not_id="i05")
        why = (await service.recommend(PAGE, options)).why_not
        assert why is not None and why.cause is Cause.FILTERED


async def test_a_filter_on_an_attribute_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    async with recommender(tmp_path) as service:
        with pytest.raises(InvalidRequest, match="evn"):
            await service.recommend(PAGE, RecommendOptions(filter=Equals("evn", True)))


async def test_items_that_the_user_had_make_room_for_others_on_an_item_page(
    tmp_path: Path,
) -> None:
    # The list of an item is longer than the shared one that is kept for everybody.
    items = [
        c.Item(id=f"n{number:03d}", title="x", vector=np.ones(2, np.float32))
        for number in range(150)
    ]
    rows = walks()
    crowd = rows._replace(
        users=["fan", "other"],
        items=[one.id for one in items],
        user=np.repeat(np.arange(2, dtype=np.int32), (140, 150)),
        item=np.concatenate([np.arange(140), np.arange(150)]).astype(np.int32),
        time_us=np.concatenate([np.arange(140), np.arange(150)]) * 1_000_000,
        weight=np.ones(290, np.float32),
    )
    async with recommender(tmp_path, items=items, rows=crowd) as service:
        audience = Audience(user_id="fan", item_ids=("n003",), surface="item_page")
        reply = await service.recommend(audience, RecommendOptions(n=8))
        assert {one.hit.id for one in reply.recommendations} <= {
            f"n{n:03d}" for n in range(140, 150)
        }
        assert len(reply.recommendations) == 8


async def test_shards_read_the_history_of_a_user_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    read = BehaviourShard.history

    def history(shard: BehaviourShard, request: HistoryRequest) -> StoredHistory:
        threads.append(threading.get_ident())
        return read(shard, request)

    monkeypatch.setattr(BehaviourShard, "history", history)
    async with recommender(tmp_path) as service:
        await service.recommend(c.Audience(user_id=walks().users[0]))
    assert len(threads) == 1 and threads[0] != threading.get_ident()


async def test_shards_of_one_process_find_and_rank_candidates_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    ranked_by: list[str] = []
    whole = LocalShard.candidates

    async def candidates(
        self: LocalShard,
        snapshot_id: str,
        request: CandidatesRequest,
        deadline: float | None = None,
        also: Sequence[int] = (),
        then: UseCandidates | None = None,
    ) -> ShardCandidates:
        def rank(found: ShardCandidates) -> None:
            assert then is not None
            then(found)
            ranked_by.append(threading.current_thread().name)

        calls.append(tuple(also))
        return await whole(self, snapshot_id, request, deadline, also, rank)

    monkeypatch.setattr(LocalShard, "candidates", candidates)
    async with recommender(tmp_path) as service:
        reply = await service.recommend(Audience(user_id="u001"), RecommendOptions(n=3))
        assert len(reply.recommendations) == 3
        assert reply.info.coverage.shards_answered == 2
    # Two shards.
    assert set(calls) == {(1,)}
    assert len(ranked_by) == len(calls)
    assert all(name.startswith("search-") for name in ranked_by)
