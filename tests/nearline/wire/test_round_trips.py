"""Every record survives conversion to protobuf and back."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline import contract as c, wire
from nearline.errors import InvalidRequest
from nearline.v1 import retrieval_pb2, types_pb2
from tests.nearline.wire.full_records import FullRecords, same

scalars = st.one_of(
    st.none(),
    st.text(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
)
values = st.one_of(scalars, st.lists(scalars, max_size=4))


@given(values)
def test_attribute_values_survive_with_their_type(value: c.AttributeValue) -> None:
    back = wire.value_from_proto(wire.value_to_proto(value))
    assert back == value and type(back) is type(value)


def test_nested_lists_and_foreign_types_are_refused() -> None:
    for bad in ([[1]], {"a": 1}, b"x"):
        with pytest.raises(InvalidRequest, match=r"is not supported|nest"):
            wire.value_to_proto(bad)  # type: ignore[arg-type]


INFO = FullRecords().of(c.ReplyInfo)


def test_zero_is_not_what_is_left_out() -> None:
    zero = c.SearchOptions(
        min_score=0.0,
        diversity=0.0,
        dense_weight=0.0,
        rerank=0,
        boosts=(
            c.Boost(field="kind", any_of=("a",), weight=0.0),
            c.Boost(field="sold", growth=c.Growth(top=0.0)),
            c.Boost(field="year", decay=c.Decay(scale=0.0, origin=0, decay=0.0)),
        ),
    )
    assert wire.options_from_proto(wire.options_to_proto(zero)) == zero
    explained = c.Explanation(dense_score=0.0, lexical_score=0.0, shard=0, dense_rank=1)
    hit = c.Hit(id="a", score=0.0, title="", explanation=explained)
    (back,) = wire.search_reply(
        wire.search_response(c.SearchReply(results=[c.HitList(hits=[hit])], info=INFO))
    ).hits
    assert back == hit


def test_unset_options_are_the_documented_defaults() -> None:
    assert wire.options_from_proto(retrieval_pb2.SearchOptions()) == c.SearchOptions(k=10)


def test_k_zero_is_passed_on_for_the_service_to_refuse() -> None:
    assert wire.options_from_proto(retrieval_pb2.SearchOptions(k=0)).k == 0


def test_unsupported_options_are_refused_not_ignored() -> None:
    empty = retrieval_pb2.SearchOptions(filter=types_pb2.Filter())
    with pytest.raises(InvalidRequest, match="filter is empty"):
        wire.options_from_proto(empty)


def test_unknown_enum_numbers_name_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"1 \(dense\)"):
        wire.options_from_proto(retrieval_pb2.SearchOptions(mode=9))  # type: ignore[arg-type]


def test_queries_survive_and_only_one_kind_is_accepted() -> None:
    for query in (c.Query(text="a"), c.Query(item_ids=("1", "2"))):
        assert wire.query_from_proto(wire.query_to_proto(query)) == query
    vector = wire.query_from_proto(wire.query_to_proto(c.Query(vector=np.ones(3, np.float32))))
    assert vector.vector is not None and vector.vector.tolist() == [1, 1, 1]
    with pytest.raises(InvalidRequest, match="exactly one"):
        wire.query_to_proto(c.Query(text="a", item_ids=("1",)))
    with pytest.raises(InvalidRequest, match="empty"):
        wire.query_from_proto(retrieval_pb2.Query())


def test_encoded_hits_survive_without_being_decoded() -> None:
    hits = [FullRecords().of(c.Hit), c.Hit(id="second", score=0.25)]
    lazy = wire.lazy_hits([wire.hit_to_bytes(hit) for hit in hits])
    back = wire.search_reply(
        wire.search_response(c.SearchReply(results=[c.HitList(hits=lazy)], info=INFO))
    )
    assert same(list(back.results[0].hits), hits) and back.info == INFO


CPU = c.ServedBy(source=c.Source.FALLBACK, rung=c.CPU_RUNG, reason="cuda:0: it is away")


@pytest.mark.parametrize("served_by", [c.ServedBy(), CPU])
def test_the_device_that_answered_survives_and_is_unset_if_it_is_the_usual_one(
    served_by: c.ServedBy,
) -> None:
    embedded = wire.embed_response(
        c.Embeddings(
            vectors=np.eye(1, 3, dtype=np.float32),
            fingerprint="f",
            tokens=np.array([3]),
            truncated=np.array([False]),
            served_by=served_by,
        )
    )
    entailed = wire.entail_response(
        c.EntailmentScores(
            entailment=[0.5], contradiction=[0.25], fingerprint="f", served_by=served_by
        )
    )
    reranked = wire.rerank_response(c.RerankScores([1.5], served_by, "f"))
    assert wire.embeddings(embedded).served_by == served_by
    assert wire.entailment_scores(entailed).served_by == served_by
    assert wire.rerank_scores(reranked).served_by == served_by
    for message in (embedded, entailed, reranked):
        assert message.HasField("served_by") == (served_by == CPU)


@pytest.mark.parametrize(
    ("options", "field", "allowed"),
    [
        (c.SearchOptions(k=-1), "options.k", "1..10000 is allowed"),
        (c.SearchOptions(ef_search=1 << 40), "options.ef_search", "1..4294967295 is"),
        (c.SearchOptions(grouping=c.Grouping("a", -1)), "options.grouping.size", "1..100 is"),
        (c.RecommendOptions(n=-1), "n", "1..1000 is allowed"),
    ],
)
def test_a_number_that_no_message_can_hold_is_refused(
    options: c.SearchOptions | c.RecommendOptions, field: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        if isinstance(options, c.SearchOptions):
            wire.options_to_proto(options)
        else:
            wire.recommend_request(c.Audience(), options, "default")
    assert caught.value.field == field and f"; {allowed}" in caught.value.message
