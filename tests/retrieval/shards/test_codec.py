"""Whatever a shard answers arrives unchanged on the other side of the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.contract import MAX_BATCH, Item, PayloadField, PlanStrategy
from nearline.errors import InvalidRequest
from nearline.internal.v1 import shard_pb2
from retrieval.protocols.shard import (
    FieldCounts,
    HitPayload,
    LexicalColumns,
    ShardCounts,
    ShardFilterPlan,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.search.fusion import fuse_hits
from retrieval.shards import codec

APPLIED = AppliedState(Watermark("log", tuple(range(64))), "Redis does not answer")
BARE = ShardHits(["a", "b"], [0.5, 0.25], [0, 3], [0, 7], [5, 9])


def _sent(hits: ShardHits) -> ShardHits:
    return codec.hits_from_proto(codec.hits_to_proto([hits]))[0]


def test_hits_without_options_arrive_unchanged() -> None:
    assert _sent(BARE) == ShardHits(
        BARE.ids, BARE.scores, BARE.chunks, BARE.starts, BARE.ends, payloads=[]
    )


def test_hits_with_every_option_arrive_unchanged() -> None:
    full = ShardHits(
        BARE.ids,
        BARE.scores,
        BARE.chunks,
        BARE.starts,
        BARE.ends,
        lexical=LexicalColumns([1.5, 0.5], [1, 2], [3, 4], [5, 6], [0.5, 3.25], 96.0),
        groups=["red", 7],
        plan=ShardFilterPlan(PlanStrategy.BITMAP, 5, 9, 64, "few match"),
        terms=[("word", 3), ("other", 1)],
        applied=APPLIED,
        boosts=[[0.25, 1.0, 0.0], [0.5, 0.0, 0.75]],
        title_scores=[96.0, 0.0],
    )
    arrived = _sent(full)
    assert arrived.payloads == []
    arrived.payloads = ()
    assert arrived == full


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


@pytest.mark.parametrize("field", ["title", "text", "attributes", "vector"])
def test_each_field_of_a_payload_arrives_alone(field: str) -> None:
    values: dict[str, Any] = {
        "title": "A title",
        "text": "A text",
        "attributes": {"colour": "red", "price": 7, "tags": ["a", "b"], "rare": True},
        "vector": np.array([0.25, -1.0, 3.5], np.float32),
    }
    nothing = HitPayload(None, None, None, None)
    payload = nothing._replace(**{field: values[field]})
    (arrived,) = _sent(ShardHits(["a"], [0.5], [0], [0], [5], [payload])).payloads
    for name, value in arrived._asdict().items():
        if name == "vector" == field:
            np.testing.assert_array_equal(value, values["vector"])
            assert value.dtype == np.float32
        elif name == field:
            assert value == values[field]
        else:
            assert not value, name


@pytest.mark.parametrize("applied", [None, APPLIED, APPLIED._replace(stale="")])
def test_items_and_counts_arrive_with_their_state(applied: AppliedState | None) -> None:
    items = ShardItems([Item(id="a", text="A text"), Item(id="b", attributes={"n": 1})], applied)
    for sent in (codec.fetched_items_to_proto(items), codec.scanned_items_to_proto(items)):
        arrived = codec.items_from_proto(sent)
        assert [one.id for one in arrived.items] == ["a", "b"]
        assert arrived.items[0].text == "A text"
        assert arrived.applied == applied
    counts = ShardCounts(9, [FieldCounts({"red": 4, 7: 2}, 3), FieldCounts({}, 9)], applied)
    assert codec.counts_from_proto(codec.counts_to_proto(counts, ["colour", "size"])) == counts


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


def test_options_arrive_unchanged() -> None:
    options = ShardOptions(
        k=7,
        payload=frozenset({PayloadField.TITLE}),
        ef_search=64,
        nprobe=3,
        exact=True,
        explain=True,
        min_watermark=APPLIED.watermark,
    )
    assert codec.options_from_proto(codec.options_to_proto(options)) == options
