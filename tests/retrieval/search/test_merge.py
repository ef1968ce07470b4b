"""The merge of hits, compared with sorting everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from nearline.contract import Hit
from retrieval.protocols.shard import HitPayload, ShardHits
from retrieval.search.merge import merge_hits

# (score, document, chunk): few values, so that ties abound.
KEYS = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(0, 40), st.integers(0, 3)), unique_by=lambda k: k[1:]
)


def hits_of(keys: list[tuple[int, int, int]]) -> ShardHits:
    ordered = sorted(keys, key=lambda key: (-key[0], f"d{key[1]:02d}", key[2]))
    return ShardHits(
        [f"d{document:02d}" for _, document, _ in ordered],
        [float(score) for score, _, _ in ordered],
        [chunk for _, _, chunk in ordered],
        [10 * chunk for _, _, chunk in ordered],
        [10 * chunk + 9 for _, _, chunk in ordered],
    )


@given(keys=KEYS, shards=st.integers(1, 5), k=st.integers(1, 50))
def test_merged_hits_are_the_best_of_all_in_order(
    keys: list[tuple[int, int, int]], shards: int, k: int
) -> None:
    parts = [(n, hits_of([key for key in keys if key[1] % shards == n])) for n in range(shards)]
    merged = merge_hits(parts, k)
    wanted = sorted((-score, f"d{document:02d}", chunk) for score, document, chunk in keys)[:k]
    assert [(-hit.score, hit.id, hit.chunk) for _, hit in merged] == wanted
    assert all(int(hit.id[1:]) % shards == shard for shard, hit in merged)
    assert all((hit.start, hit.end) == (10 * hit.chunk, 10 * hit.chunk + 9) for _, hit in merged)


def test_hits_of_one_shard_have_its_payloads_and_groups() -> None:
    vector = np.ones(2, np.float32)
    payloads = [HitPayload("one", "text", {"a": 1}, vector), HitPayload(None, None, None, None)]
    columns = (["x", "y"], [2.0, 1.0], [3, 4], [5, 6], [7, 8], payloads)
    hits = ShardHits(*columns, groups=["g", None])
    (shard, first), (_, second) = merge_hits([(6, hits)], 9)
    assert shard == 6
    assert first == Hit(
        id="x",
        score=2.0,
        chunk=3,
        start=5,
        end=7,
        title="one",
        text="text",
        attributes={"a": 1},
        vector=vector,
        group="g",
    )
    assert second == Hit(id="y", score=1.0, chunk=4, start=6, end=8)
    assert [hit for _, hit in merge_hits([(6, hits)], 1)] == [first]
