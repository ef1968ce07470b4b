"""Tables become items: which columns, which values, and what is refused, by row and column."""

from __future__ import annotations

import decimal
import io
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from nearline import AsyncClient, contract as c
from nearline.clients.frames import FrameRows
from nearline.clients.progress import ProgressLine
from nearline.errors import InvalidRequest, NearlineError, NotReady, Unsupported
from nearline.v1 import retrieval_pb2
from tests.nearline.clients.test_own_writes import serving
from tests.optional_packages import needs
from tests.retrieval.writable_collection import written

pytestmark = needs("narwhals", "frames")
DAY = datetime(2026, 5, 1, tzinfo=UTC)


def pandas_frame(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


def arrow_frame(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pyarrow").table(columns)


def polars_frame(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns, strict=False)


MAKERS: list[Callable[[dict[str, Any]], Any]] = [pandas_frame, arrow_frame, polars_frame]
every_library = pytest.mark.parametrize("make", MAKERS, ids=["pandas", "arrow", "polars"])


def items_of(frame: Any, **columns: Any) -> list[c.Item]:
    chosen: dict[str, Any] = dict.fromkeys(("text", "title", "vector", "attributes"))
    rows = FrameRows(frame, **{"id": "id", **chosen, **columns})
    return [item for batch in rows.batches() for item in batch.items]


@every_library
def test_columns_of_known_names_are_taken_and_all_others_are_attributes(
    make: Callable[[dict[str, Any]], Any],
) -> None:
    frame = make(
        {
            "id": [1, 2],
            "title": ["A", None],
            "text": ["red", "blue"],
            "vector": [[1.0, 0.5], [0.0, 1.0]],
            "price": [1.5, 2.0],
            "stock": [3, None],
            "new": [True, False],
            "day": [date(2026, 5, 1), None],
            "when": [DAY, None],
            "tags": [["x", "y"], ["z"]],
        }
    )
    first, second = items_of(frame)
    assert (first.id, first.title, first.text) == ("1", "A", "red")
    assert first.vector.dtype == np.float32 and first.vector.tolist() == [1.0, 0.5]  # type: ignore[union-attr]
    assert first.attributes["tags"] == ["x", "y"]
    assert {name: first.attributes[name] for name in ("price", "stock", "new")} == {
        "price": 1.5,
        "stock": 3,
        "new": True,
    }
    assert first.attributes["day"] == first.attributes["when"] == DAY
    assert second.title == ""
    assert set(second.attributes) == {"price", "new", "tags"}


@every_library
def test_columns_are_chosen_by_name(make: Callable[[dict[str, Any]], Any]) -> None:
    frame = make({"sku": ["a"], "name": ["A"], "body": ["red"], "x": [1], "y": [2], "id": ["no"]})
    [item] = items_of(frame, id="sku", title="name", text="body", attributes=["y"])
    assert item == c.Item(id="a", title="A", text="red", attributes={"y": 2})
    [item] = items_of(frame, id="sku", text="body", attributes=())
    assert item == c.Item(id="a", text="red")


def test_decimals_objects_and_categories_are_taken_as_builds_take_them() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "id": ["a"],
            "text": ["x"],
            "price": [decimal.Decimal("1.50")],
            "size": [{"wide": 2, "deep": None}],
            "kind": pandas.Categorical(["cup"]),
            "count": pandas.array([None], dtype="Int64"),
            "list": [np.array([1, 2])],
        }
    )
    [item] = items_of(frame)
    assert item.attributes == {
        "price": 1.5,
        "size.wide": 2,
        "size.deep": None,
        "kind": "cup",
        "list": [1, 2],
    }


@every_library
@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("id", ["a", None], "column 'id' is None; use a text or an integer"),
        ("id", [1.5, 2.5], "column 'id' is 1.5, a float"),
        ("text", [1, 2], "column 'text' is 1, an int"),
        ("vector", [[1.0, 0.0], [1.0, float("nan")]], "column 'vector'[1] is nan"),
        ("span", [[1.0, 0.0], [1.0, float("inf")]], "column 'span'[1] is inf"),
        ("raw", [b"x", b"y"], "column 'raw' is b'x', a bytes"),
    ],
)
def test_a_value_is_refused_by_row_and_column(
    make: Callable[[dict[str, Any]], Any], column: str, values: list[Any], says: str
) -> None:
    frame = make({"id": ["a", "b"], "text": ["x", "y"], column: values})
    with pytest.raises(InvalidRequest) as raised:
        items_of(frame)
    assert says in raised.value.message
    row = raised.value.message.split(",")[0].removeprefix("row ")
    assert raised.value.field == f"frame[{row}].{column}"


def test_a_nan_that_is_no_missing_value_is_refused() -> None:
    frame = arrow_frame({"id": ["a"], "text": ["x"], "price": [float("nan")]})
    with pytest.raises(InvalidRequest, match="row 0, column 'price' is nan"):
        items_of(frame)
    frame = pandas_frame({"id": ["a"], "text": ["x"], "price": [float("nan")]})
    assert items_of(frame)[0].attributes == {}


def test_a_missing_column_and_what_is_no_table_are_named() -> None:
    frame = pandas_frame({"sku": ["a"], "body": ["x"]})
    for columns, field in (
        ({}, "id"),
        ({"id": "sku"}, "text"),
        ({"id": "sku", "text": "bodi"}, "text"),
        ({"id": "sku", "text": "body", "attributes": ["sku", "no"]}, "attributes[1]"),
    ):
        with pytest.raises(InvalidRequest, match="its columns are sku, body") as raised:
            items_of(frame, **columns)
        assert raised.value.field == field
    for other in ([{"id": "a"}], {"id": ["a"]}, "frame", None):
        with pytest.raises(InvalidRequest, match="use a table of pandas, polars or Arrow"):
            items_of(other)


def test_without_narwhals_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(Unsupported, match=r"pip install 'nearline\[frames\]'"):
        items_of(None)


def test_batches_are_bounded_by_rows_and_by_characters() -> None:
    short = pandas_frame({"id": range(600), "text": ["x"] * 600})
    rows = FrameRows(short, id="id", text=None, title=None, vector=None, attributes=None)
    assert [(one.first, len(one.items)) for one in rows.batches()] == [
        (0, 256),
        (256, 256),
        (512, 88),
    ]
    long = arrow_frame({"id": range(5), "text": ["x" * 600_000] * 3 + ["y"] * 2})
    rows = FrameRows(long, id="id", text=None, title=None, vector=None, attributes=None)
    assert [(one.first, len(one.items)) for one in rows.batches()] == [(0, 1), (1, 1), (2, 3)]


async def test_a_table_is_stored_whole_and_read_at_once() -> None:
    here = written()
    frame = arrow_frame(
        {
            "id": range(700),
            "text": ["red"] * 699 + ["poison"],
            "year": [2026] * 700,
            "kind": ["cup"] * 699 + [None],
        }
    )
    async with serving(here) as address, AsyncClient(address) as client:
        reply = await client.upsert_frame(frame)
        assert reply.counts == {c.WriteOutcome.APPLIED: 699, c.WriteOutcome.REJECTED: 1}
        assert [one.id for one in reply.rejections] == ["699"]
        assert (await client.count(min_watermark=reply.watermark)).count == 699
        assert (await client.get([5])).items[0].attributes == {"year": 2026, "kind": "cup"}
        bad = arrow_frame({"id": ["a"] * 257, "text": ["x"] * 257})
        with pytest.raises(InvalidRequest, match=r"^rows 0\.\.255, counted from 0: items has item"):
            await client.upsert_frame(bad)


async def test_it_waits_while_the_service_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[NearlineError] = [NotReady("away", retry_after_s=0.0)] * 2
    keys = []
    async with AsyncClient("127.0.0.1:1") as client:

        async def send(method: object, request: Any, *_: object, **__: object) -> object:
            keys.append(request.idempotency_key)
            if failures:
                raise failures.pop()
            result = retrieval_pb2.WriteResult(
                id="a", outcome=retrieval_pb2.WriteResult.OUTCOME_APPLIED
            )
            return retrieval_pb2.UpsertItemsResponse(results=[result])

        monkeypatch.setattr(client.retrieval, "send", send)
        monkeypatch.setattr("nearline.retry._POLL_S", 0.0)
        reply = await client.upsert_frame(arrow_frame({"id": ["a"], "text": ["x"]}))
    assert reply.counts == {c.WriteOutcome.APPLIED: 1}
    assert len(keys) == 3 and len(set(keys)) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_in_a_terminal_after_two_seconds_and_removed() -> None:
    now = [0.0]
    stream = Terminal()
    with ProgressLine("rows", stream=stream, clock=lambda: now[0]) as line:
        line.reach(100, 1_000)
        assert stream.getvalue() == ""
        now[0] = 2.0
        line.reach(250, 1_000)
        assert stream.getvalue() == "\r250 of 1,000 rows, 125 per second, 6 s left"
        now[0] = 2.1
        line.reach(260, 1_000)
        assert "260" not in stream.getvalue()
    assert stream.getvalue().split("\r")[-2].strip() == ""


def test_progress_is_shown_to_nobody_else() -> None:
    for stream, shown in ((io.StringIO(), True), (Terminal(), False)):
        clock = iter([0.0, 5.0, 10.0]).__next__
        with ProgressLine("rows", shown=shown, stream=stream, clock=clock) as line:
            line.reach(1, 2)
        assert stream.getvalue() == ""
