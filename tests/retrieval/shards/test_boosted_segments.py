"""A shard of two segments returns the values of boosts like one segment with all documents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nearline.contract import Boost, Decay, Grouping, Growth, HitLevel, PayloadField, SearchMode
from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from retrieval.search.boosts import boosted_hits
from retrieval.search.fusion import fuse_hits
from tests.retrieval.segment_pairs import DIM
from tests.retrieval.shards.test_two_segments import made

BOOSTS = (
    Boost(field="kind", any_of=("a", "c"), weight=2.0),
    Boost(field="tags", any_of=("x",), weight=-1.0),
    Boost(field="year", decay=Decay(scale=1.0, origin=2003)),
    Boost(field="year", growth=Growth(pivot=2001.0)),
)


@pytest.fixture(scope="module", name="threads")
def give_threads() -> Iterator[ThreadPool]:
    started = ThreadPool(1)
    yield started
    started.close()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 1 << 30),
    mode=st.sampled_from(SearchMode),
    level=st.sampled_from(HitLevel),
    grouping=st.sampled_from([None, Grouping("kind"), Grouping("tags", 2)]),
)
def test_boosted_hits_are_those_of_one_segment(
    tmp_path_factory: pytest.TempPathFactory,
    threads: ThreadPool,
    seed: int,
    mode: SearchMode,
    level: HitLevel,
    grouping: Grouping | None,
) -> None:
    shards = made(tmp_path_factory.mktemp("parts"), threads, seed)
    vectors = np.random.default_rng(seed).integers(-2, 3, (2, DIM)).astype(np.float32)
    texts = ("fig plum", "plum apple apple")
    queries = ShardQueries(
        vectors if mode is not SearchMode.LEXICAL else np.empty((0, DIM), np.float32),
        texts if mode is not SearchMode.DENSE else (),
    )
    options = ShardOptions(
        500, mode=mode, level=level, exact=True, grouping=grouping, boosts=BOOSTS
    )

    def ranked(hits: ShardHits) -> list[tuple[object, ...]]:
        assert len(hits.boosts) == len(hits.ids)
        if mode is SearchMode.HYBRID:
            found = fuse_hits(
                [(0, hits)], 500, candidates=500, dense_weight=0.4, floor=-1.0, boosts=BOOSTS
            )
        else:
            lexical = mode is SearchMode.LEXICAL
            found = boosted_hits([(0, hits)], 500, 500, BOOSTS, lexical=lexical, explain=False)
        return [(hit.id, hit.score, hit.chunk, hit.group) for _, hit in found]

    two = shards.two.search_now(queries, options)
    one = shards.one.search_now(queries, options)
    assert list(map(ranked, two)) == list(map(ranked, one))
    if grouping is not None:
        # All documents with the attribute are candidates, not only the best of each value.
        kept = {hit[0] for hit in ranked(one[0])}
        stored = shards.one.base.scan("", None, frozenset({PayloadField.ATTRIBUTES}), None)
        known = {item.id for item in stored if grouping.field in (item.attributes or {})}
        if mode is SearchMode.DENSE:
            assert kept == known
        elif mode is SearchMode.HYBRID:
            # Hits without the attribute are left out once the results of all shards are fused.
            assert kept >= known
        else:
            assert kept <= known
