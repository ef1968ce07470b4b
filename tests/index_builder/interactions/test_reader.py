"""Reading interactions: ids, times, weights, dropped rows and errors."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.interactions import reader
from index_builder.interactions.reader import (
    ColumnNames,
    read_importable,
    read_interactions,
)
from nearline.errors import InvalidRequest
from nearline.times import to_us

_UIT = ColumnNames("u", "i", "t")
_ALL = ColumnNames("u", "i", "t", "k", "v")
_SECOND = 1_000_000
_Write = Callable[..., Path]


@pytest.fixture(name="write")
def give_write(tmp_path: Path) -> _Write:
    """Returns a function that writes lines to a file."""

    def write(*lines: str, name: str = "events.csv") -> Path:
        path = tmp_path / name
        text = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return path

    return write


def _table(path: Path, columns: dict[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_ids_are_as_written_and_numbered_by_their_first_row(write: _Write) -> None:
    path = write("t,i,u", "3,007,NA", "1,7, x", "2,1.0,NA", '5,"a,""b",null')
    found, report = read_interactions(path, _UIT)
    assert list(found.users) == ["NA", " x", "null"]
    assert list(found.items) == ["007", "7", "1.0", 'a,"b']
    assert found.user.tolist() == [0, 1, 0, 2]
    assert found.item.tolist() == [0, 1, 2, 3]
    assert found.time_us.tolist() == [3 * _SECOND, _SECOND, 2 * _SECOND, 5 * _SECOND]
    assert found.weight.tolist() == [1, 1, 1, 1]
    assert [column.dtype.name for column in found[2:6]] == ["int32", "int32", "int64", "float32"]
    assert report == (4, 4, {})


def test_each_row_left_out_is_counted_once_by_the_first_reason(write: _Write) -> None:
    path = write(
        "u,i,t,k,v",
        "dropped,dropped,never,buy,1",
        "a,x,1,buy,2",
        ",,,,",
        "a,,never,buy,1",
        "a,x,1",
        "a,x,1,buy,2,3",
        "a,x,1,browse,1",
        "a,x,1,Buy,1",
        "a,x,1,view,many",
        "a,x,1,view,",
        "a,x,1,view,0",
        "a,x,1,view,-2",
        "a,x,1,hide,1",
        "a,x,1,view,1e-99",
        "a,x,1,view,1e99",
        "b,y,2,view, 0.5 ",
    )
    kinds = {"buy": 3.0, "view": 0.5, "hide": 0.0}
    found, report = read_interactions(path, _ALL, kinds)
    # Ids that occur only in rejected rows have no number.
    assert (found.users, found.items) == (["a", "b"], ["x", "y"])
    assert found.weight.tolist() == [6.0, 0.25]
    assert report.left_out == {
        reader.NO_TIME: 1,
        reader.NO_USER: 1,
        reader.NO_ITEM: 1,
        reader.CELLS: 2,
        reader.NO_KIND: 2,
        reader.NO_VALUE: 2,
        reader.NO_WEIGHT: 5,
    }
    assert (report.rows, report.kept) == (16, 2)


def test_every_kind_weighs_one_by_default(write: _Write) -> None:
    path = write("u,i,t,k,v", "a,x,1,buy,2", "a,x,1,,3")
    assert read_interactions(path, _ALL)[0].weight.tolist() == [2, 3]
    assert read_interactions(path, _ALL, {})[0].weight.tolist() == [2, 3]


_OFFSETS = st.none() | st.integers(-23 * 60 - 59, 23 * 60 + 59).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
_TIMES = st.tuples(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), _OFFSETS).map(
    lambda pair: pair[0].replace(tzinfo=pair[1])
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(_TIMES, st.sampled_from(["T", " "])), min_size=1, max_size=40))
def test_times_read_as_python_reads_them(
    tmp_path_factory: pytest.TempPathFactory, times: list[tuple[datetime, str]]
) -> None:
    path = tmp_path_factory.mktemp("times") / "events.csv"
    lines = [f"a,x,{time.isoformat(separator)}" for time, separator in times]
    path.write_text("\n".join(["u,i,t", *lines]))
    found, _ = read_interactions(path, _UIT)
    aware = [time if time.tzinfo else time.replace(tzinfo=UTC) for time, _ in times]
    assert found.time_us.tolist() == [to_us(time) for time in aware]


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-02", 86_400 * _SECOND),
        ("1970-01-01T00:01", 60 * _SECOND),
        ("1970-01-01 00:00:01Z", _SECOND),
        ("1970-01-01T01:00:00+01", 0),
        ("1970-01-01T00:30:00-0030", 3600 * _SECOND),
        ("1970-01-01T00:00:00.123456789Z", 123_456),
        ("2000-02-29", 951_782_400 * _SECOND),
        ("0001-01-01", -62_135_596_800 * _SECOND),
        (" 12 ", 12 * _SECOND),
        ("-1", -_SECOND),
        ("1260759144.123456", 1_260_759_144_123_456),
        ("1.26e9", 1_260_000_000 * _SECOND),
        ("99999999999", 99_999_999_999 * _SECOND),
        ("100000000000", 100_000_000_000_000),
        ("1260759144123", 1_260_759_144_123_000),
        ("1260759144123456", 1_260_759_144_123_456),
    ],
)
def test_a_time_in_each_form(write: _Write, text: str, time_us: int) -> None:
    assert read_interactions(write("u,i,t", f"a,x,{text}"), _UIT)[0].time_us.tolist() == [time_us]


def test_an_invalid_time_drops_only_its_row(write: _Write) -> None:
    bad = ["", "soon", "2011-02-29", "2100-02-29", "2011-04-31", "2011-13-01", "2011-01-00"]
    bad += ["0000-01-01", "0000-02-29", "2011-01-01T24:00", "2011-01-01T10:60", "2011-01-01T10"]
    bad += ["2011-01-01T10:00:60", "2011-01-01Z", "2011-01-01T10:00+24:00", "2011-1-1", "nan"]
    bad += ["0001-01-01T00:00+01:00", "1260759144123456789", "1e99", "1" * 400, "inf", "0x10"]
    path = write("u,i,t", *(f"a,x,{text}" for text in bad), "a,x,2011-01-01", "a,x,7")
    found, report = read_interactions(path, _UIT)
    assert report.left_out == {reader.NO_TIME: len(bad)}
    assert found.time_us.tolist() == [1_293_840_000 * _SECOND, 7 * _SECOND]


@pytest.mark.parametrize("name", ["e.csv", "E.CSV", "e.csv.gz", "e.tsv"])
def test_every_ending_and_cells_of_several_lines(write: _Write, name: str) -> None:
    rows = [["note", "u", "i", "t"], ['"two\nlines"', "a", "x", "5"], ["", "b", "x", "6"]]
    path = write(*(("\t" if name == "e.tsv" else ",").join(row) for row in rows), name=name)
    found, report = read_interactions(path, _UIT)
    assert (found.users, found.items, report.rows) == (["a", "b"], ["x"], 2)


def test_results_do_not_depend_on_block_boundaries(
    write: _Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    lines = [f"u{u},i{i},{u + i or 'x'}" for u, i in rng.integers(0, 40, (2_000, 2))]
    path = write("u,i,t", *lines)
    whole, report = read_interactions(path, _UIT)
    monkeypatch.setattr(reader, "_BLOCK_BYTES", 256)
    parts, report_of_parts = read_interactions(path, _UIT)
    assert report == report_of_parts
    cells = [line.split(",") for line in lines if not line.endswith("x")]
    for found in (whole, parts):
        assert list(found.users) == list(dict.fromkeys(user for user, _, _ in cells))
        assert [found.users[n] for n in found.user] == [user for user, _, _ in cells]
        assert list(found.items) == list(dict.fromkeys(item for _, item, _ in cells))
        assert [found.items[n] for n in found.item] == [item for _, item, _ in cells]
        assert found.time_us.tolist() == [int(time) * _SECOND for _, _, time in cells]


_AT = datetime(2011, 11, 2, 12, 20, 0, 5, tzinfo=UTC)
_NAIVE = _AT.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("times", "time_us"),
    [
        (pa.array([_NAIVE], pa.timestamp("us")), to_us(_AT)),
        (pa.array([_NAIVE], pa.timestamp("ns")), to_us(_AT)),
        (pa.array([_AT], pa.timestamp("us", "Europe/London")), to_us(_AT)),
        (pa.array([date(1970, 1, 2)], pa.date32()), 86_400 * _SECOND),
        (pa.array([to_us(_AT)], pa.int64()), to_us(_AT)),
        (pa.array([1.5], pa.float64()), 1_500_000),
        (pa.array([_AT.isoformat()]).dictionary_encode(), to_us(_AT)),
    ],
)
def test_times_of_parquet(tmp_path: Path, times: object, time_us: int) -> None:
    path = _table(tmp_path / "e.parquet", {"u": [1], "i": ["x"], "t": times})
    assert read_interactions(path, _UIT)[0].time_us.tolist() == [time_us]


def test_parquet_has_numbers_dictionaries_and_nulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_BATCH_ROWS", 2)
    columns: dict[str, object] = {
        "u": pa.array([12, None, -3, 12, 5, 5], pa.int32()),
        "i": pa.array(["x", "x", "y", None, "z", "x"]).dictionary_encode(),
        "t": pa.array([1, 1, 1, 1, None, 2], pa.uint64()),
        "k": ["view", "view", "buy", "buy", "buy", "view"],
        "v": pa.array([2, 2, 2, 2, 2, None], pa.int8()),
    }
    path = _table(tmp_path / "e.parquet", columns)
    found, report = read_interactions(path, _ALL, {"view": 1.0, "buy": 5.0})
    assert (found.users, found.items) == (["12", "-3"], ["x", "y"])
    assert found.weight.tolist() == [2, 10]
    reasons = (reader.NO_USER, reader.NO_ITEM, reader.NO_TIME, reader.NO_VALUE)
    assert report == (6, 2, dict.fromkeys(reasons, 1))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (ColumnNames("user", "i", "t"), r"no column user; it has: u, i, t, w, w"),
        (ColumnNames("u", "", "t"), "name the user, item and time columns"),
        (ColumnNames("u", "i", "t", value="w"), "more than one column w; rename"),
    ],
)
def test_missing_and_duplicate_columns_are_refused(
    write: _Write, columns: ColumnNames, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_interactions(write("u,i,t,w,w", "a,x,1,1,1"), columns)


def test_a_parquet_id_must_not_be_a_float(tmp_path: Path) -> None:
    path = _table(tmp_path / "e.parquet", {"u": [17850.0], "i": ["x"], "t": [1]})
    with pytest.raises(
        InvalidRequest, match=r"column u of .* has type double, which cannot be a user; write it"
    ):
        read_interactions(path, _UIT)
    with pytest.raises(InvalidRequest, match="no column user; it has: u, i, t"):
        read_interactions(path, ColumnNames("user", "i", "t"))


def test_kinds_need_a_column_and_finite_weights(write: _Write) -> None:
    path = write("u,i,t,k", "a,x,1,buy")
    with pytest.raises(InvalidRequest, match="name the column, or omit the weights"):
        read_interactions(path, _UIT, {"buy": 1.0})
    with pytest.raises(InvalidRequest, match="weight of buy is not finite"):
        read_interactions(path, _UIT._replace(kind="k"), {"buy": float("nan")})


def test_unusable_files_are_refused(write: _Write, tmp_path: Path) -> None:
    refused = [
        (
            write("u,i,t", "a,x,soon", ",x,1"),
            "none of the 2 rows of .*: 1 with no user; 1 with no read",
        ),
        (write("u,i,t", name="header.csv"), "none of the 0 rows of .* can be used; check"),
        (write(name="empty.csv"), "cannot be read: Empty CSV file"),
        (write("u,i,t", name="e.xlsx"), r"must end in \.csv, \.csv\.gz"),
        (write("u,i,t", name="text.parquet"), "cannot be read"),
        (tmp_path / "missing.csv", "cannot be read"),
        (tmp_path / "missing.parquet", "cannot be read"),
    ]
    for path, says in refused:
        with pytest.raises(InvalidRequest, match=says):
            read_interactions(path, _UIT)


def test_only_the_named_columns_must_be_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"u,i,t,note\na,x,1,\xa35\n")
    assert read_interactions(path, _UIT)[0].users == ["a"]
    with pytest.raises(InvalidRequest, match="invalid UTF8 data"):
        read_interactions(path, _UIT._replace(user="note"))


def test_lines_of_json_are_read_like_a_table(write: _Write) -> None:
    lines = (
        '{"u": 7, "i": "a", "t": "2024-05-01T12:00:00Z", "other": [1]}',
        '{"t": "2024-05-01", "i": "b", "u": 8}',
        '{"u": 9, "i": "", "t": "2024-05-01"}',
    )
    for name in ("events.jsonl", "events.ndjson"):
        found, report = read_interactions(write(*lines, name=name), _UIT)
        assert (found.users, found.items) == (["7", "8"], ["a", "b"])
        assert found.time_us.tolist() == [1_714_564_800 * _SECOND, 1_714_521_600 * _SECOND]
        assert report == (3, 2, {reader.NO_ITEM: 1})
    with pytest.raises(
        InvalidRequest, match=r"cannot be read: .*JSON.*give a CSV, TSV, JSON lines"
    ):
        read_interactions(write('{"u": 7, "i": "a", "t": "1"}', "no", name="events.jsonl"), _UIT)
    with pytest.raises(InvalidRequest, match="has no column t; it has: u, i"):
        read_interactions(write('{"u": 7, "i": "a"}', name="events.jsonl"), _UIT)


def test_rows_to_import_keep_their_kind_and_their_own_weight(write: _Write) -> None:
    soon_s, later_s = int(time.time()) + 1_800, int(time.time()) + 7_200
    path = write(
        "u,i,t,k,v",
        "a,x,1,buy,2.5",
        f"b,y,{soon_s},,1",
        ",x,1,buy,1",
        "a,,1,buy,1",
        f"{'a' * 513},x,1,buy,1",
        f"a,x,1,{'k' * 65},1",
        "a,x,soon,buy,1",
        "a,x,-1,buy,1",
        f"a,x,{later_s},buy,1",
        "a,x,1,buy,much",
        "a,x,1,buy,0",
        "a,x",
    )
    left_out: Counter[str] = Counter()
    (table,) = read_importable(path, _ALL, left_out)
    assert table.to_pylist() == [
        {"user": "a", "item": "x", "time_us": _SECOND, "kind": "buy", "weight": 2.5},
        {"user": "b", "item": "y", "time_us": soon_s * _SECOND, "kind": "", "weight": 1.0},
    ]
    assert left_out == {
        reader.CELLS: 1, reader.NO_USER: 1, reader.NO_ITEM: 1, reader.TOO_LONG: 2,
        reader.NO_TIME: 1, reader.NO_PAST: 2, reader.NO_VALUE: 1, reader.NO_WEIGHT: 1,
    }  # fmt: skip
    (table,) = read_importable(path, _UIT, Counter())
    assert set(table["kind"].to_pylist()) == {""} and set(table["weight"].to_pylist()) == {0.0}
    broken = path.with_name("broken.csv")
    broken.write_bytes(b"u,i,t\n\xff\xfe,x,1\n")
    with pytest.raises(InvalidRequest, match=r"broken.csv cannot be read: .*UTF-?8"):
        list(read_importable(broken, _UIT, Counter()))
