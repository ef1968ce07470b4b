"""Facts about calls, and what is never among them."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from nearline import wire
from nearline.filters import All, Any, Equals, Exists, Filter, In, Not, Phrase, Range, Words
from nearline.tracing.call_facts import call_facts, filter_shape, has_info
from nearline.v1 import (
    admin_pb2,
    embedding_pb2,
    generation_pb2,
    retrieval_pb2,
    types_pb2,
)
from retrieval.monitoring import filter_shape as of_records

PERSONAL = "jane.doe@example.com asks about her illness"
SHAPES: list[Filter] = [
    Equals("owner", PERSONAL),
    In("owner", (PERSONAL, "b")),
    Range("price", gte=1.0),
    Exists("price"),
    Words(PERSONAL),
    Phrase(PERSONAL),
    Not(Equals("owner", PERSONAL)),
    All(Equals("owner", PERSONAL), Range("price", lt=2.0), Equals("x", 1)),
    Any(All(Equals("owner", PERSONAL)), Exists("price")),
    All(Equals("a", 1), In("a", (1,)), Range("a", gt=1), Exists("a"), Words("w")),
    All(),
]


def search(condition: Filter) -> retrieval_pb2.SearchRequest:
    return retrieval_pb2.SearchRequest(
        collection="shop",
        query=retrieval_pb2.Query(text=PERSONAL),
        options=retrieval_pb2.SearchOptions(
            k=7,
            mode=retrieval_pb2.SEARCH_MODE_HYBRID,
            filter=wire.filter_to_proto(condition),
            unit=PERSONAL,
        ),
    )


@pytest.mark.parametrize("condition", SHAPES, ids=of_records.filter_shape)
def test_a_filter_has_the_shape_that_metrics_give_it(condition: Filter) -> None:
    assert filter_shape(wire.filter_to_proto(condition)) == of_records.filter_shape(condition)


@pytest.mark.parametrize("condition", SHAPES, ids=of_records.filter_shape)
def test_no_text_no_user_and_no_value_is_a_fact(condition: Filter) -> None:
    facts = call_facts(search(condition))
    assert facts == {
        "collection": "shop",
        "k": 7,
        "mode": "hybrid",
        "filter": of_records.filter_shape(condition),
    }


def test_a_text_in_place_of_a_name_is_not_shown() -> None:
    facts = call_facts(retrieval_pb2.SearchRequest(collection=PERSONAL))
    assert facts == {"collection": "(not a name)"}
    assert call_facts(retrieval_pb2.GetUserRequest(user_id=PERSONAL)) == {}


def test_requests_with_many_parts_say_how_many() -> None:
    assert call_facts(embedding_pb2.EmbedRequest(texts=[PERSONAL] * 3)) == {"texts": 3}
    assert call_facts(retrieval_pb2.GetItemsRequest(ids=["a", "b"])) == {"items": 2}


def test_a_reply_says_which_snapshot_answered_and_how_long_each_stage_took() -> None:
    info = types_pb2.ReplyInfo(
        epoch=3,
        snapshot_id="s1",
        coverage=types_pb2.Coverage(shards_answered=1, shards_total=2),
        served_by=types_pb2.ServedBy(rung="stale", reason=PERSONAL),
        timings=types_pb2.Timings(embed=Duration(nanos=1_500_000), total=Duration(seconds=2)),
    )
    facts = {
        "snapshot": "s1",
        "epoch": 3,
        "shards_answered": 1,
        "shards_total": 2,
        "served_by": "stale",
        "embed_ms": 1.5,
        "total_ms": 2_000.0,
    }
    assert call_facts(None, retrieval_pb2.SearchResponse(info=info)) == facts
    event = generation_pb2.GenerateResponse(evidence=generation_pb2.EvidenceEvent(info=info))
    assert has_info(event) and call_facts(None, event) == facts
    assert not has_info(generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="x")))
    assert not has_info(b"bytes")


def test_calls_of_other_kinds_have_few_facts() -> None:
    async def stream() -> None: ...

    assert call_facts(stream, object()) == {}
    reply = admin_pb2.GetServingStatusResponse()
    assert call_facts(admin_pb2.GetServingStatusRequest(), reply) == {}
