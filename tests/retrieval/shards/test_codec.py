"""Whatever a shard answers arrives unchanged on the other side of the wire."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.contract import MAX_BATCH
from nearline.errors import InvalidRequest
from nearline.internal.v1 import shard_pb2
from retrieval.protocols.shard import (
    LexicalColumns,
    ShardHits,
    ShardQueries,
)
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.search.fusion import fuse_hits
from retrieval.shards import codec

APPLIED = AppliedState(Watermark("log", tuple(range(64))), "Redis does not answer")
BARE = ShardHits(["a", "b"], [0.5, 0.25], [0, 3], [0, 7], [5, 9])


def _sent(hits: ShardHits) -> ShardHits:
    return codec.hits_from_proto(codec.hits_to_proto([hits]))[0]


def test_an_older_shard_matches_no_titles() -> None:
    hits = ShardHits(
        BARE.ids,
        BARE.scores,
        BARE.chunks,
        BARE.starts,
        BARE.ends,
        lexical=LexicalColumns([1.5, 0.5], [1, 2], [3, 4], [5, 6], [2.0, 3.0]),
    )
    message = codec.hits_to_proto([hits])
    for result in message.results:
        result.ClearField("lexical_titles")
    older = codec.hits_from_proto(message)[0]
    assert older.lexical == LexicalColumns([1.5, 0.5], [1, 2], [3, 4], [5, 6], [0.0, 0.0])
    # Alongside a shard that matches them.
    (_, first), *_ = fuse_hits(
        [(0, older), (1, _sent(hits))], 9, candidates=9, dense_weight=0.5, floor=0.0
    )
    assert first.id == "b" and first.score > 3


def test_the_state_of_several_hits_is_the_oldest() -> None:
    older = AppliedState(Watermark("log", (0,) * 64), "")
    results = [ShardHits([], [], [], [], [], applied=one) for one in (APPLIED, older)]
    arrived = codec.hits_from_proto(codec.hits_to_proto(results))
    assert [hits.applied and hits.applied.watermark for hits in arrived] == [older.watermark] * 2


def test_queries_arrive_unchanged_and_must_fit_the_shard() -> None:
    def sent(vectors: NDArray[np.float32], *texts: str) -> ShardQueries:
        message = shard_pb2.SearchShardRequest()
        codec.fill_queries(message, ShardQueries(vectors, texts))
        return codec.queries_from_proto(message, 3)

    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrived = sent(vectors, "a", "b")
    np.testing.assert_array_equal(arrived.vectors, vectors)
    assert arrived.texts == ("a", "b")
    assert sent(np.empty((0, 3), np.float32), "a").vectors.shape == (0, 3)
    with pytest.raises(InvalidRequest, match="there are 1 texts and 2 vectors"):
        sent(vectors, "a")
    with pytest.raises(InvalidRequest, match="dim 2, the shard has dim 3"):
        sent(np.ones((2, 2), np.float32))


@pytest.mark.parametrize("field", ["vectors", "texts"])
def test_a_request_has_at_most_as_many_queries_as_a_batch(field: str) -> None:
    def sent(count: int) -> ShardQueries:
        vectors = np.zeros((count if field == "vectors" else 0, 3), np.float32)
        message = shard_pb2.SearchShardRequest()
        texts = ("a",) * count if field == "texts" else ()
        codec.fill_queries(message, ShardQueries(vectors, texts))
        return codec.queries_from_proto(message, 3)

    assert sent(MAX_BATCH).count == MAX_BATCH
    with pytest.raises(InvalidRequest) as caught:
        sent(MAX_BATCH + 1)
    assert caught.value.field == field
