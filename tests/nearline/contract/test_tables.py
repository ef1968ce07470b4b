"""Replies become tables of pandas and Arrow, and HTML in which nothing of an item is markup."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import Unsupported
from tests.optional_packages import needs

needs_pandas, needs_pyarrow = needs("pandas", "milvus"), needs("pyarrow", "retrieval")
INFO = c.ReplyInfo(
    epoch=4,
    snapshot_id="s1",
    fingerprint="f",
    coverage=c.Coverage(shards_answered=1, shards_total=2),
)
WHEN = datetime(2026, 5, 1, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;"


def hit(id: str, **fields: Any) -> c.Hit:
    return c.Hit(**{"id": id, "score": 0.5, "title": f"title {id}", "text": "t", **fields})


def found(*lists: Sequence[c.Hit]) -> c.SearchReply:
    return c.SearchReply(results=[c.HitList(hits=hits) for hits in lists], info=INFO)


HITS = [
    hit("a", attributes={"price": 1.5, "tags": ["x", "y"], "id": 7, "when": WHEN}),
    hit("b", attributes={"price": None, "tags": "z"}, vector=np.ones(2, np.float32)),
]


@needs_pandas
def test_hits_are_rows_of_pandas_with_a_column_for_each_attribute() -> None:
    frame = found(HITS).to_pandas()
    assert list(frame["id"]) == ["a", "b"]
    assert list(frame["title"]) == ["title a", "title b"]
    assert frame["price"][0] == 1.5 and frame["price"].isna().tolist() == [False, True]
    assert frame["attributes.id"][0] == 7
    assert frame["vector"][0] is None and frame["vector"][1].tolist() == [1.0, 1.0]
    assert "query" not in frame and "group" not in frame
    assert list(found(HITS, HITS[:1]).to_pandas()["query"]) == [0, 0, 1]
    assert len(found([]).to_pandas()) == 0


@needs_pyarrow
def test_hits_are_a_table_of_arrow_whatever_kinds_their_attributes_have() -> None:
    mixed = hit("c", attributes={"tags": 5, "price": "free"})
    columns = found([*HITS, mixed]).to_arrow().to_pydict()
    assert columns["id"] == ["a", "b", "c"]
    assert columns["price"] == ["1.5", None, "free"]
    assert columns["when"] == [WHEN, None, None]
    assert columns["vector"] == [None, [1.0, 1.0], None]
    assert columns["tags"] == ['["x", "y"]', "z", "5"]
    assert found(HITS).to_arrow().to_pydict()["tags"] == [["x", "y"], ["z"]]


@needs_pandas
def test_lists_and_items_are_rows_too() -> None:
    listed = c.RecommendReply(
        recommendations=[c.Recommendation(hit=HITS[0], reasons=["popular"])],
        ignored_ids=[],
        info=INFO,
        policy="home/1/8f14e45f",
    )
    row = listed.to_pandas().iloc[0]
    assert (row["id"], row["reasons"], row["price"]) == ("a", ["popular"], 1.5)
    items = [c.Item(id="a", text="x", attributes={"n": 1}, expires=WHEN, version=3)]
    page = c.ItemsPage(items=items, next_page_token="", info=INFO)
    reply = c.ItemsReply(items=items, ignored_ids=[], info=INFO)
    for frame in (page.to_pandas(), reply.to_pandas()):
        assert frame.iloc[0]["n"] == 1 and frame.iloc[0]["version"] == 3
        assert frame.iloc[0]["expires"] == WHEN


def test_nothing_of_an_item_is_markup() -> None:
    item = c.Item(id=HOSTILE, title=HOSTILE, text=HOSTILE, attributes={HOSTILE: HOSTILE})
    hostile = hit(HOSTILE, title=HOSTILE, text=HOSTILE, attributes={HOSTILE: [HOSTILE]})
    citation = c.Citation(
        number=1,
        document_id=HOSTILE,
        chunk=0,
        char_start=0,
        char_end=1,
        text_hash="",
        snapshot_id=HOSTILE,
        title=HOSTILE,
    )
    answer = c.Answer(
        text=HOSTILE,
        citations=[citation],
        refusal=None,
        evidence=c.Evidence(documents=[], info=INFO),
        usage=c.Usage(),
        done=None,
    )
    shown: list[Any] = [
        found([hostile]),
        c.ItemsReply(items=[item], ignored_ids=[], info=INFO),
        c.ItemsPage(items=[item], next_page_token="", info=INFO),
        c.RecommendReply(
            recommendations=[c.Recommendation(hit=hostile, reasons=[HOSTILE])],
            ignored_ids=[],
            info=INFO,
            policy=HOSTILE,
        ),
        answer,
    ]
    for reply in shown:
        html = reply._repr_html_()
        assert "&lt;script&gt;" in html
        assert "<script" not in html and "<img" not in html and "&amp;amp;" in html


def test_long_values_and_many_rows_are_cut_and_a_refusal_says_why() -> None:
    html = found([hit(str(n), text="y" * 5_000) for n in range(150)])._repr_html_()
    assert html.count("<tr>") == 101 and "the first 100 of 150 rows" in html
    assert "y" * 240 + "…" in html and "y" * 241 not in html
    assert "epoch 4 · snapshot s1 · shards 1/2" in html
    refusal = c.Refusal(
        reason=c.RefusalReason.OFF_TOPIC,
        topic_probability=0.1,
        evidence_probability=0.1,
        calibrated=False,
        message="About other things.",
    )
    refused = c.Answer(
        text="",
        citations=[],
        refusal=refusal,
        evidence=c.Evidence(documents=[], info=INFO),
        usage=c.Usage(),
        done=None,
    )
    # Lines of a list or of code stay lines.
    style = "white-space: pre-wrap"
    assert refused._repr_html_() == f'<p style="{style}">About other things.</p>'


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_a_library_that_is_missing_is_named_with_the_remedy(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    convert = found([]).to_pandas if library == "pandas" else found([]).to_arrow
    with pytest.raises(Unsupported, match=f"pip install {library}"):
        convert()
