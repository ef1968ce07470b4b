"""Jobs, results, dead letters and the queue state survive conversion to protobuf and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline import contract as c, wire
from nearline.errors import InvalidRequest
from nearline.v1 import ingest_pb2, retrieval_pb2, types_pb2

COUNTS = st.integers(0, (1 << 64) - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SOURCES = st.one_of(
    st.builds(c.SourceFile, TEXTS, st.binary(max_size=20)),
    st.builds(c.SourceUrl, TEXTS),
    st.builds(c.Item, id=TEXTS, title=TEXTS, text=TEXTS),
)


def submission(
    *sources: c.IngestSource, offset: int = 0, ttl_s: float | None = None, tenant: str = "t"
) -> ingest_pb2.SubmitRequest:
    return wire.submit_request(
        sources,
        collection="shop",
        tenant=tenant,
        priority=c.JobPriority.LOW,
        callback_id="cb",
        job_id="j",
        offset=offset,
        more=True,
        result_ttl_s=ttl_s,
    )


@given(
    st.lists(SOURCES, min_size=1, max_size=4),
    COUNTS,
    st.none() | st.integers(1, 1 << 30).map(lambda eighths: eighths / 8),
)
def test_a_submission_survives(
    sources: list[c.IngestSource], offset: int, ttl_s: float | None
) -> None:
    request = submission(*sources, offset=offset, ttl_s=ttl_s)
    assert wire.sources_of(request) == sources
    assert wire.result_ttl_of(request) == ttl_s
    assert (request.collection, request.tenant, request.callback_id) == ("shop", "t", "cb")
    assert (request.job_id, request.offset, request.more) == ("j", offset, True)
    assert wire.priority_from_proto(request.priority) is c.JobPriority.LOW


def test_a_vector_of_a_source_survives() -> None:
    vector = np.array([1.5, -2, np.nan], np.float32)
    (source,) = wire.sources_of(submission(c.Item(id="a", vector=vector)))
    assert isinstance(source, c.Item) and source.vector is not None
    np.testing.assert_array_equal(source.vector, vector)


def test_an_unspecified_priority_is_normal_and_an_unknown_one_is_refused() -> None:
    assert wire.priority_from_proto(0) is c.JobPriority.NORMAL
    with pytest.raises(InvalidRequest, match="99") as caught:
        wire.priority_from_proto(99)
    assert caught.value.field == "priority"
    known = ingest_pb2.JOB_STATE_FAILED
    assert wire.states_from_proto([known, known]) == {c.JobState.FAILED}
    for number in (0, 99):
        with pytest.raises(InvalidRequest):
            wire.states_from_proto([number])


def test_a_malformed_source_is_named() -> None:
    vector = types_pb2.Vectors(data=b"abc", dim=1)
    broken = ingest_pb2.IngestSource(item=retrieval_pb2.Item(id="a", vector=vector))
    request = ingest_pb2.SubmitRequest(sources=[ingest_pb2.IngestSource(url="u"), broken])
    with pytest.raises(InvalidRequest) as caught:
        wire.sources_of(request)
    assert caught.value.field == "sources[1].item.vector"
    request = ingest_pb2.SubmitRequest(sources=[ingest_pb2.IngestSource()])
    with pytest.raises(InvalidRequest, match="neither item, file nor url") as caught:
        wire.sources_of(request)
    assert caught.value.field == "sources[0]"


def test_values_that_no_message_can_hold_are_refused() -> None:
    for source in (c.SourceFile("\ud800.md", b""), c.SourceUrl("\ud800"), c.Item(id="\ud800")):
        with pytest.raises(InvalidRequest, match="half a surrogate"):
            submission(source)
    with pytest.raises(InvalidRequest, match="half a surrogate"):
        submission(tenant="\ud800")
    with pytest.raises(InvalidRequest, match="offset is -1"):
        submission(offset=-1)
