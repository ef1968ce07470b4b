"""A shard of two segments answers like one segment with the same documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.typing import NDArray

from nearline.contract import (
    Filter,
    Grouping,
    HitLevel,
    PayloadField,
    PlanStrategy,
    SearchMode,
)
from nearline.errors import Unsupported
from nearline.filter_text import parse_filter
from retrieval.index.segment import Segment
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.union import join_hits
from retrieval.live.progress import LiveView
from retrieval.protocols.shard import (
    CountRequest,
    HighlightRequest,
    ItemsRequest,
    ScanRequest,
    ShardHits,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.shards.local_shard import LocalShard
from tests.retrieval.segment_pairs import (
    DIM,
    WORDS,
    MadeUp,
    matches_of,
    part_of,
    random_document,
    without,
)
from tests.retrieval.small_snapshots import documents_of
from tests.scale import scaled

APPLIED = AppliedState(Watermark("log", (3,) * 64))
ALL = frozenset(PayloadField)
NONE: frozenset[PayloadField] = frozenset()


class Shards(NamedTuple):
    """The same documents in two segments and in one. ids: All ids, including deleted ones."""

    two: LocalShard
    live: Segment
    one: LocalShard
    ids: list[str]


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPool]:
    started = ThreadPool(1)
    yield started
    started.close()


def made(
    folder: Path, threads: ThreadPool, seed: int, base: int = 12, live: int = 6, gone: int = 5
) -> Shards:
    """Makes shards whose live documents replace others, with deletions in both segments."""
    rng = np.random.default_rng(seed)
    names = [f"d{n:02}" for n in rng.permutation(base + live + 2 * gone)]
    kept, added = names[:base], names[base : base + live]
    base_gone, live_gone = names[base + live :][:gone], names[base + live :][gone:]
    staying = [random_document(rng, name) for name in kept]
    new = [random_document(rng, name) for name in added]
    replaced = [name for name in added if rng.random() < 0.5]
    hidden = [*base_gone, *replaced]
    before = part_of(folder / "base", [*staying, *(random_document(rng, name) for name in hidden)])
    after = part_of(folder / "live", [*new, *(random_document(rng, name) for name in live_gone)])
    two = LocalShard("s", 0, before, threads=threads)
    view = LiveView(APPLIED, without(before, hidden), after, without(after, live_gone))
    two.attach(MadeUp(view))
    one = LocalShard("s", 0, part_of(folder / "one", [*staying, *new]), threads=threads)
    return Shards(two, after, one, sorted(names))


def plainly(hits: ShardHits) -> list[tuple[object, ...]]:
    """Returns hits in a form that can be compared."""
    columns = [hits.ids, hits.scores, hits.chunks, hits.starts, hits.ends]
    columns += [each for each in (hits.groups,) if each]
    payloads = [
        (one.title, one.text, one.attributes, None if one.vector is None else one.vector.tolist())
        for one in hits.payloads
    ]
    return list(zip(*columns, *([payloads] if payloads else []), strict=True))


FILTERS = ["", "kind = a", "kind != a", "tags = x OR year < 2002", "year >= 2003", "year > 2010"]
FILTERS += ['WORDS "fig plum"', 'NOT PHRASE "fig pear"', 'PHRASE "pear plum"']
filters = st.sampled_from(FILTERS).map(lambda text: parse_filter(text) if text else None)


@settings(
    deadline=None,
    max_examples=scaled(60, nightly=600),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 1 << 30),
    live=st.sampled_from([0, 1, 6, 20]),
    base=st.sampled_from([0, 1, 12, 40]),
    gone=st.sampled_from([0, 5]),
    k=st.integers(1, 45),
    mode=st.sampled_from([SearchMode.DENSE, SearchMode.LEXICAL]),
    level=st.sampled_from(HitLevel),
    exact=st.booleans(),
    filter=filters,
    grouping=st.sampled_from([None, "kind", "year", "tags"]),
)
def test_hits_match_those_of_one_segment(
    tmp_path_factory: pytest.TempPathFactory,
    threads: ThreadPool,
    seed: int,
    live: int,
    base: int,
    gone: int,
    k: int,
    mode: SearchMode,
    level: HitLevel,
    exact: bool,
    filter: Filter | None,
    grouping: str | None,
) -> None:
    shards = made(tmp_path_factory.mktemp("parts"), threads, seed, base, live, gone)
    options = ShardOptions(
        k,
        mode,
        level,
        ALL,
        exact=exact,
        filter=filter,
        grouping=Grouping(grouping) if grouping else None,
        explain=True,
    )
    found = shards.two.search_now(asked(seed), options)
    wanted = shards.one.search_now(asked(seed), options)
    for two, one in zip(found, wanted, strict=True):
        assert plainly(two) == plainly(one)
        assert two.terms == one.terms or base + live == 0
        assert two.applied == APPLIED and one.applied is None
        if one.plan is not None:
            assert two.plan is not None
            assert two.plan.matches == one.plan.matches
            assert (two.plan.strategy is PlanStrategy.EMPTY) == (one.plan.matches == 0)


def test_hits_that_tie_at_the_last_place_go_by_their_ids() -> None:
    base, live = (ShardHits([one], [1.0], [0], [0], [5]) for one in ("b", "a"))
    assert list(join_hits(base, live, ShardOptions(1)).ids) == ["a"]


def asked(seed: int) -> ShardQueries:
    rng = np.random.default_rng(seed + 1)
    vectors = rng.integers(-1, 2, (2, DIM)).astype(np.float32)
    return ShardQueries(vectors, tuple(" ".join(rng.choice([*WORDS, "kiwi"], 3)) for _ in range(2)))


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1 << 30), filter=filters, limit=st.integers(1, 9))
def test_items_lists_and_counts_match_those_of_one_segment(
    tmp_path_factory: pytest.TempPathFactory,
    threads: ThreadPool,
    seed: int,
    filter: Filter | None,
    limit: int,
) -> None:
    shards = made(tmp_path_factory.mktemp("parts"), threads, seed)

    async def answers(shard: LocalShard) -> list[object]:
        told: list[object] = []
        fetched = await shard.fetch(
            "s", ItemsRequest([*shards.ids, "none"], ALL - {PayloadField.VECTOR})
        )
        told.append(fetched.items)
        seconds = [1] * len(shards.ids)
        marked = HighlightRequest(["fig or plum", ""], [[0, 1] for _ in seconds], 20, 40)
        text = frozenset({PayloadField.TEXT})
        chunks = await shard.fetch("s", ItemsRequest(shards.ids, text, seconds, highlight=marked))
        told += [chunks.items, chunks.highlights]
        after = ""
        while True:
            page = await shard.scan(
                "s", ScanRequest(after, limit, filter, frozenset({PayloadField.TITLE}))
            )
            told.append(page.items)
            if len(page.items) < limit:
                break
            after = page.items[-1].id
        counts = await shard.count("s", CountRequest(filter, ["kind", "tags", "year"]))
        told += [counts.count, [(dict(one.counts), one.missing) for one in counts.fields]]
        applied = {fetched.applied, chunks.applied, page.applied, counts.applied}
        assert applied == ({APPLIED} if shard is shards.two else {None})
        return told

    assert asyncio.run(answers(shards.two)) == asyncio.run(answers(shards.one))


@pytest.mark.parametrize("mode", SearchMode)
def test_a_shard_whose_rows_are_all_hidden_returns_no_hits(
    tmp_path: Path, threads: ThreadPool, mode: SearchMode
) -> None:
    base = part_of(tmp_path / "base", [random_document(np.random.default_rng(5), "a")])
    shard = LocalShard("s", 0, base, threads=threads)
    shard.attach(MadeUp(LiveView(APPLIED, without(base, {"a"}))))
    for level in HitLevel:
        for hits in shard.search_now(asked(1), ShardOptions(3, mode, level)):
            assert (list(hits.ids), hits.plan, hits.applied) == ([], None, APPLIED)


def test_a_filter_plan_covers_both_segments(tmp_path: Path, threads: ThreadPool) -> None:
    shards = made(tmp_path, threads, 1)
    options = ShardOptions(3, filter=parse_filter("year >= 2000"))
    plan = shards.two.search_now(asked(1), options)[0].plan
    assert plan is not None and plan.strategy is PlanStrategy.EXACT
    base, live = (part.items.chunks for part in (shards.two.base, shards.live))
    assert plan.chunks == base + live
    assert "of live changes, " in plan.reason and f"of {live} match" in plan.reason


# --- hidden rows of a graph -------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "IVF16,Flat", "Flat"])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.7, 0.97])
def test_recall_does_not_depend_on_the_share_of_hidden_rows(
    tmp_path: Path, threads: ThreadPool, rng: np.random.Generator, factory: str, share: float
) -> None:
    vectors = rng.normal(size=(3_000, 16)).astype(np.float32)
    queries = rng.normal(size=(50, 16)).astype(np.float32)
    alive = rng.random(3_000) >= share
    base = part_of(tmp_path / "base", documents_of(vectors), factory)
    found = base.search(ShardQueries(queries), ShardOptions(10), matches_of(base, alive))
    nothing = base.search(ShardQueries(queries), ShardOptions(10))
    assert (
        recall(vectors, queries, alive, found)
        >= recall(vectors, queries, np.ones(3_000, np.bool_), nothing) - 0.02
    )


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "IVF16,Flat"])
def test_hidden_rows_around_a_query_cost_no_recall(
    tmp_path: Path, threads: ThreadPool, rng: np.random.Generator, factory: str
) -> None:
    vectors = rng.normal(size=(3_000, 16)).astype(np.float32)
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    base = part_of(tmp_path / "base", documents_of(vectors), factory)
    for query in queries:
        alive = np.ones(3_000, np.bool_)
        alive[np.argsort(-(vectors @ query))[:200]] = False
        found = base.search(ShardQueries(query[None]), ShardOptions(10), matches_of(base, alive))
        assert recall(vectors, query[None], alive, found) >= 0.9


def recall(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    alive: NDArray[np.bool_],
    found: list[ShardHits],
) -> float:
    exact = np.where(alive, queries @ vectors.T, -np.inf)
    best = np.argsort(-exact, axis=1)[:, :10]
    good = 0
    for rows, hits in zip(best.tolist(), found, strict=True):
        assert len(hits.ids) == 10
        assert all(alive[int(one[1:])] for one in hits.ids)
        good += len({f"d{row:05}" for row in rows} & set(hits.ids))
    return good / best.size


# --- watermarks -------------------------------------------------------------------------------


@asynccontextmanager
async def followed(folder: Path) -> AsyncIterator[tuple[LocalShard, MadeUp]]:
    """Yields a shard of document a, and live changes that have not hidden it yet."""
    threads = ThreadPool(1)
    base = part_of(folder / "base", [random_document(np.random.default_rng(2), "a")])
    shard = LocalShard("s", 0, base, threads=threads)
    live = MadeUp(LiveView(AppliedState(Watermark("log"))))
    shard.attach(live)
    yield shard, live
    await asyncio.to_thread(threads.close)


async def test_a_search_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    async with followed(tmp_path) as (shard, _):
        options = ShardOptions(3, min_watermark=APPLIED.watermark)
        search = shard.search("s", asked(1), options)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search


async def test_a_watermark_is_refused_without_live_changes(tmp_path: Path) -> None:
    async with followed(tmp_path) as (attached, _):
        shard = LocalShard("s", 0, attached.base, threads=ThreadPool(0))
        least = APPLIED.watermark
        calls = [
            shard.search("s", asked(1), ShardOptions(3, min_watermark=least)),
            shard.fetch("s", ItemsRequest(["a"], NONE, min_watermark=least)),
            shard.scan("s", ScanRequest("", 3, None, NONE, least)),
            shard.count("s", CountRequest(None, [], least)),
        ]
        for call in calls:
            with pytest.raises(Unsupported, match="start the service with --redis URL"):
                await call
