"""The search cache: which results are reused, and which are searched again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from nearline import contract as c, wire
from nearline.errors import DeadlineExceeded, InvalidRequest, NotReady, ShardsUnavailable
from nearline.filters import Equals, In
from nearline.store.snapshot import Store, partition_of
from nearline.v1 import snapshot_pb2
from retrieval.cache.cached_list import CachedList
from retrieval.cache.change_tracker import RecentChanges, ValidatedList
from retrieval.cache.tiered_cache import TieredCache
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.embedders.endpoints import Embedders
from retrieval.live.progress import LiveState, LiveView
from retrieval.protocols.candidates import NO_EVENTS, KeyedHistory
from retrieval.protocols.shard import ShardHits
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.recommend.user_profile import history_of_items
from retrieval.router.service import RetrievalService
from retrieval.search.collection import ServedCollection
from retrieval.search.search_cache import SearchCache
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.local_shard import LocalShard
from tests.retrieval.cache.sample_lists import KEY, Clock, Maker, mark, until_idle
from tests.retrieval.fakes import FailingShard
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.small_snapshots import documents_of, write_snapshot
from tests.waits import until

ONE = c.Query(vector=np.ones(4, np.float32))
FIELD = snapshot_pb2.AttributeField(name="even", kind=snapshot_pb2.AttributeField.KIND_BOOL)
OPTIONS = c.SearchOptions(k=5, payload=frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT}))


class Counting:
    """A shard that counts its searches. error: Raised in place of hits."""

    def __init__(self, shard: LocalShard) -> None:
        self._shard = shard
        self.asked = 0
        self.error: Exception | None = None
        # Searches that wait until a test answers them; None answers all at once.
        self.held: list[asyncio.Future[Sequence[ShardHits]]] | None = None

    def search(self, *asked: Any, **more: Any) -> asyncio.Future[Sequence[ShardHits]]:
        self.asked += 1
        if self.error is not None:
            return FailingShard(self.error).search(*asked, **more)
        if self.held is not None:
            self.held.append(asyncio.get_running_loop().create_future())
            return self.held[-1]
        return self._shard.search(*asked, **more)

    def __getattr__(self, name: str) -> object:
        return getattr(self._shard, name)


class Followed(LiveState):
    """Live changes up to a position of the log, none of which changes an answer."""

    def __init__(self, position: int, stale: str = "") -> None:
        self.view = LiveView(AppliedState(mark(position), stale))

    def reached(self, least: Watermark) -> bool:
        return self.view.applied.watermark.covers(least)

    async def wait(self, least: Watermark, deadline: float | None) -> None:
        raise NotReady("it is no further")


class Known:
    """Known changes of items, as a `ChangeTracker` reports them."""

    def __init__(self) -> None:
        self.touches = RecentChanges(mark(0), 100)

    def read(self, hot: CachedList | None, item: str = "") -> ValidatedList:
        return self.touches.read(hot, item)

    def add(self, document_id: str, position: int, kind: ChangeKind) -> None:
        change = Change(document_id=document_id, kind=kind)
        self.touches.add([ChangeEntry(partition_of(document_id), position, 0, change)])


class Running(NamedTuple):
    """A service with a search cache, and its parts."""

    service: RetrievalService
    shards: Sequence[Counting]
    known: Known
    clock: Clock
    root: Path
    local: LocalShardProvider

    @property
    def asked(self) -> int:
        return sum(one.asked for one in self.shards)

    def apply(self, position: int, stale: str = "") -> None:
        for one in self.shards:
            one._shard.attach(Followed(position, stale))


@pytest.fixture
async def running(tmp_path: Path, rng: np.random.Generator) -> AsyncIterator[Running]:
    matrix = rng.integers(-3, 4, (60, 4)).astype(np.float32)
    documents = [
        replace(one, attributes={"even": number % 2 == 0})
        for number, one in enumerate(documents_of(matrix, 2))
    ]
    write_snapshot(tmp_path, documents, shards=2, fields=[FIELD])
    async with contextlib.AsyncExitStack() as stack:
        local = LocalShardProvider(Store(tmp_path), 2)
        stack.push_async_callback(local.close)
        (snapshot,) = read_current_snapshots(Store(tmp_path), ())
        shards = [Counting(one) for one in await local.prepare(snapshot)]
        known, clock = Known(), Clock(time.time_ns() // 1_000)
        lists = TieredCache(None, ttl_s=10, stale_s=60, clock=clock, abandons=True)
        kept = SearchCache(lists, {snapshot.collection: known})  # type: ignore[dict-item]
        stack.push_async_callback(kept.close)
        service = RetrievalService(Embedders({}), cache=kept)
        service.serve(ServedCollection(snapshot, shards))  # type: ignore[arg-type]
        yield Running(service, shards, known, clock, tmp_path, local)


def hits(reply: c.SearchReply) -> list[c.Hit]:
    return list(reply.results[0].hits)


async def test_a_repeated_search_is_answered_from_the_cache(running: Running) -> None:
    first = await running.service.search(ONE, OPTIONS)
    again = await running.service.search(ONE, OPTIONS)
    assert running.asked == 2, "one question to each of two shards"
    assert hits(again) == hits(first) and len(hits(again)) == 5
    assert all(hit.title is not None and hit.text for hit in hits(again))
    assert first.info.served_by == c.ServedBy()
    assert again.info.served_by == c.ServedBy(source=c.Source.CACHE, reason="near")
    assert again.info.list_id not in ("", first.info.list_id)
    assert again.info.coverage == first.info.coverage


async def test_a_cached_search_does_not_keep_its_filter(running: Running) -> None:
    for _ in range(2):
        wanted = replace(OPTIONS, filter=In("even", (True, False, True)))
        reply = await running.service.search(ONE, wanted)
    assert reply.info.served_by.source is c.Source.CACHE
    del wanted

    def filters() -> list[In]:
        gc.collect()
        every = [one for one in gc.get_objects() if type(one) is In]
        return [one for one in every if one.values == (True, False, True)]

    # A search thread holds its last batch for a moment.
    await until(lambda: not filters())


async def test_a_cached_reply_states_its_own_time_and_none_of_a_search(running: Running) -> None:
    await running.service.search(ONE, OPTIONS)
    start = time.perf_counter()
    info = (await running.service.search(ONE, OPTIONS)).info
    spent_s = time.perf_counter() - start
    assert info.total_s is not None and 0 < info.total_s <= spent_s
    assert info.search_s is None and info.embed_s is None


async def test_personal_results_are_of_one_user_and_never_kept(running: Running) -> None:
    (served,) = running.service.collections
    plain = await running.service.search(ONE, replace(OPTIONS, k=100))
    had, *_, second, last = [hit.id for hit in hits(plain)]
    # After the best hit, people want the last one.
    ids = sorted(hit.id for hit in hits(plain))
    model = learned(ids, {had: {last: 3.0, second: 1.0}}, dict.fromkeys(ids, 1.0))
    served.learned, served.local_behaviour = model, model.local

    async def history(_: object, audience: c.Audience, context: object) -> KeyedHistory:
        return history_of_items([had]) if audience.user_id == "ann" else NO_EVENTS

    running.service._history = history
    wide, asked = replace(OPTIONS, k=100, personal=1.0, user_id="ann"), running.asked
    first, *others = await asyncio.gather(*(running.service.search(ONE, wide) for _ in range(3)))
    # No two of them share a search, and none is answered from the cache.
    assert running.asked == asked + 6
    assert all(hits(one) == hits(first) for one in others)
    assert [one.score for one in hits(first)] == [one.score for one in hits(plain)]
    assert not any(one.reasons for one in hits(first))
    told = await running.service.search(ONE, replace(wide, explain=True))
    assert [one.id for one in hits(told)] == [one.id for one in hits(first)]
    rose = {one.id: one.reasons for one in hits(told) if one.reasons}
    assert tuple(rose[last]) == (f"because:{had}",)
    assert [hit.id for hit in hits(first)].index(last) < len(ids) - 1
    # Others, known or not, have the results that everybody shares.
    asked = running.asked
    others_know: Sequence[dict[str, Any]] = ({"user_id": "bob"}, {"session_id": "s"}, {})
    for other in others_know:
        options = replace(OPTIONS, k=100, personal=1.0 if other else 0.0, **other)
        reply = await running.service.search(ONE, options)
        assert list(map(wire.hit_to_bytes, hits(reply))) == list(
            map(wire.hit_to_bytes, hits(plain))
        )
    assert running.asked == asked


async def test_concurrent_equal_searches_run_once(running: Running) -> None:
    replies = await asyncio.gather(*(running.service.search(ONE, OPTIONS) for _ in range(50)))
    assert running.asked == 2
    assert all(hits(reply) == hits(replies[0]) for reply in replies)


async def test_a_search_ends_when_nobody_waits_for_it_and_not_before(running: Running) -> None:
    shard = running.shards[0]
    held = shard.held = []
    callers = [asyncio.create_task(running.service.search(ONE, OPTIONS)) for _ in range(3)]
    await until_idle()
    [search] = held
    for one in callers[:2]:
        one.cancel()
        await until_idle()
        assert not search.cancelled()
    callers[2].cancel()
    await until_idle()
    assert search.cancelled() and all(one.cancelled() for one in callers)
    # Whoever comes next begins a search of their own, also before the other one has ended.
    callers = [asyncio.create_task(running.service.search(ONE, OPTIONS)) for _ in range(2)]
    await until_idle()
    callers[0].cancel()
    await until_idle()
    callers[1].cancel()
    shard.held = None
    assert hits(await running.service.search(ONE, OPTIONS)) and held[1].cancelled()


async def test_a_deadline_that_passes_ends_a_search(running: Running) -> None:
    for one in running.shards:
        one.held = []
    with pytest.raises(DeadlineExceeded):
        await running.service.search(ONE, OPTIONS, timeout_s=0.01)
    await until_idle()
    held = [search for one in running.shards for search in one.held or ()]
    assert len(held) >= 2 and all(one.cancelled() for one in held)


@pytest.mark.parametrize(
    "other",
    [
        {"k": 6},
        {"payload": frozenset({c.PayloadField.TITLE})},
        {"filter": Equals("even", True)},
        {"level": c.HitLevel.CHUNK},
        {"min_score": 1.0},
        {"exact": True},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_different_search_is_not_answered_from_the_cache(
    running: Running, other: dict[str, Any]
) -> None:
    await running.service.search(ONE, OPTIONS)
    asked = running.asked
    reply = await running.service.search(ONE, replace(OPTIONS, **other))
    assert running.asked > asked and reply.info.served_by.source is c.Source.LIVE


@pytest.mark.parametrize(
    ("query", "other"),
    [
        (ONE, {"explain": True}),
        (ONE, {"payload": frozenset(c.PayloadField)}),
        (c.Query(item_ids=("d00003",)), {}),
    ],
    ids=["explained", "with vectors", "by items"],
)
async def test_searches_that_cannot_be_cached_run_each_time(
    running: Running, query: c.Query, other: dict[str, Any]
) -> None:
    options = replace(OPTIONS, **other)
    first = await running.service.search(query, options)
    asked = running.asked
    again = await running.service.search(query, options)
    assert running.asked == 2 * asked
    assert [hit.id for hit in hits(again)] == [hit.id for hit in hits(first)]


async def test_a_partial_answer_is_returned_but_not_cached(running: Running) -> None:
    running.shards[1].error = NotReady("away")
    part = await running.service.search(ONE, OPTIONS)
    assert part.info.coverage.missing_shards == (1,)
    assert running.asked == 2, "what was found is given: nobody is asked twice"
    with pytest.raises(ShardsUnavailable, match="away"):
        await running.service.search(ONE, replace(OPTIONS, require_full_coverage=True))
    running.shards[1].error = None
    running.clock.goes_on(2)
    whole = await running.service.search(ONE, OPTIONS)
    assert whole.info.coverage.shards_answered == 2


async def test_a_stale_answer_is_not_cached(running: Running) -> None:
    running.apply(3, "the log is away")
    reply = await running.service.search(ONE, OPTIONS)
    assert reply.info.served_by.rung == "stale"
    assert running.asked == 2, "what was found is given: nobody is asked twice"
    reply = await running.service.search(ONE, OPTIONS)
    assert reply.info.served_by.rung == "stale"
    assert running.asked > 2


async def test_deleted_items_are_left_out_and_changed_items_are_searched_again(
    running: Running,
) -> None:
    running.apply(3)
    first = await running.service.search(ONE, OPTIONS)
    gone = hits(first)[0].id
    running.known.add(gone, 4, ChangeKind.DELETE)
    again = await running.service.search(ONE, OPTIONS)
    assert [hit.id for hit in hits(again)] == [hit.id for hit in hits(first)][1:]
    assert running.asked == 2
    running.known.add(hits(first)[1].id, 5, ChangeKind.UPSERT)
    running.apply(6)
    anew = await running.service.search(ONE, OPTIONS)
    assert running.asked == 4 and anew.info.served_by.source is c.Source.LIVE


async def test_a_result_older_than_the_watermark_is_searched_again(running: Running) -> None:
    running.apply(3)
    first = await running.service.search(ONE, OPTIONS)
    assert first.info.watermark == mark(3).encode()
    same = await running.service.search(ONE, replace(OPTIONS, min_watermark=mark(3).encode()))
    assert same.info.served_by.source is c.Source.CACHE
    assert same.info.watermark == first.info.watermark
    running.apply(4)
    newer = await running.service.search(ONE, replace(OPTIONS, min_watermark=mark(4).encode()))
    assert newer.info.served_by.source is c.Source.LIVE
    assert newer.info.watermark == mark(4).encode()


async def test_an_invalid_request_fails_without_affecting_a_valid_one(running: Running) -> None:
    await running.service.search(ONE, OPTIONS)
    for wrong in (
        c.Query(),
        c.Query(vector=ONE.vector, text="words"),
        c.Query(vector=ONE.vector, item_ids=("d00003",)),
        c.Query(vector=np.ones(3, np.float32)),
    ):
        with pytest.raises(InvalidRequest):
            await running.service.search(wrong, OPTIONS)


async def test_a_filter_of_another_kind_is_refused_though_its_value_is_equal_in_python(
    running: Running,
) -> None:
    valid, wrong = (replace(OPTIONS, filter=Equals("even", value)) for value in (True, 1))
    first = await running.service.search(ONE, valid)
    assert first.hits
    with pytest.raises(InvalidRequest, match="even"):
        await running.service.search(ONE, wrong)
    assert (await running.service.search(ONE, valid)).info.served_by.source is c.Source.CACHE


async def test_while_shards_are_away_a_stale_result_is_returned_and_marked(
    running: Running,
) -> None:
    first = await running.service.search(ONE, OPTIONS)
    for one in running.shards:
        one.error = NotReady("away")
    running.clock.goes_on(30)
    old = await running.service.search(ONE, OPTIONS)
    assert hits(old) == hits(first)
    assert old.info.served_by == c.ServedBy(source=c.Source.CACHE, reason="stale")
    running.clock.goes_on(31)
    with pytest.raises(ShardsUnavailable, match="away"):
        await running.service.search(ONE, OPTIONS)


async def test_after_a_flip_no_hit_of_the_old_snapshot_is_returned(running: Running) -> None:
    old = await running.service.search(ONE, OPTIONS)
    assert (await running.service.search(ONE, OPTIONS)).info.served_by.source is c.Source.CACHE
    others = [
        replace(one, id=f"new{one.id}", attributes={"even": True})
        for one in documents_of(np.ones((20, 4), np.float32), 2)
    ]
    write_snapshot(running.root, others, shards=2, fields=[FIELD])
    (snapshot,) = read_current_snapshots(Store(running.root), ())
    running.service.serve(ServedCollection(snapshot, await running.local.prepare(snapshot)))
    for source in (c.Source.LIVE, c.Source.CACHE):
        reply = await running.service.search(ONE, OPTIONS)
        assert reply.info.snapshot_id == snapshot.snapshot_id != old.info.snapshot_id
        assert all(hit.id.startswith("new") for hit in hits(reply)) and len(hits(reply)) == 5
        assert reply.info.served_by.source is source


async def test_a_search_that_a_server_died_of_is_not_repeated_past_the_cache(
    running: Running,
) -> None:
    for one in running.shards:
        one.error = NotReady("connection reset", peer_died=True)
    with pytest.raises(ShardsUnavailable) as caught:
        await running.service.search(ONE, OPTIONS)
    assert caught.value.peer_died
    assert [one.asked for one in running.shards] == [1, 1]


async def test_closing_ends_computations_of_the_cache() -> None:
    lists, maker = TieredCache(None), Maker(Clock())
    maker.may.clear()
    waiting = asyncio.ensure_future(lists.get(KEY, maker))
    await until_idle()
    await SearchCache(lists, {}).close()
    await until_idle()
    assert waiting.done()
    with pytest.raises(NotReady, match="shutting down"):
        await waiting
