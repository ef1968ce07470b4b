"""Encoded recommendations decode to the originals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given, strategies as st

from nearline import contract as c, wire

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=2))])
SCALARS = (
    st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=ZONES)
)
TEXTS = st.none() | st.text(max_size=5)
HITS = st.builds(
    c.Hit,
    id=st.text(min_size=1, max_size=5),
    score=st.floats(width=32, allow_nan=False),
    title=TEXTS,
    text=TEXTS,
    attributes=st.none() | st.dictionaries(st.text(max_size=3), SCALARS, min_size=1, max_size=3),
)
INFO = c.ReplyInfo(
    epoch=1,
    snapshot_id="s",
    fingerprint="f",
    coverage=c.Coverage(shards_answered=1, shards_total=1),
    served_by=c.ServedBy(),
    watermark=b"",
    list_id="l",
)


@given(st.lists(HITS, max_size=4))
def test_encoded_recommendations_decode_to_the_originals(hits: list[c.Hit]) -> None:
    plain = [c.Recommendation(hit=hit) for hit in hits]
    shown = wire.lazy_recommendations([wire.recommendation_to_bytes(hit) for hit in hits])
    assert len(shown) == len(plain)
    assert shown == plain
    assert shown[1:] == plain[1:]
    replies = [
        c.RecommendReply(recommendations=given, ignored_ids=[], info=INFO, policy="home/0/x")
        for given in (shown, plain)
    ]
    first, second = map(wire.recommend_response, replies)
    assert first == second
    assert wire.recommend_reply(first).recommendations == plain
