"""Files made to hurt: each costs its reader little, and only itself is lost."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.documents.bad_rows import BadRows, DamagedFile
from index_builder.readers import json_lines
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from index_builder.readers.delimited import MAX_LINE_CHARACTERS
from index_builder.readers.sandbox import SandboxReader
from index_builder.readers.text import parse_prose

pytestmark = pytest.mark.service
GOOD = '{"id": "good", "text": "x"}\n'
LENGTH = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "# a" + " " * LENGTH + "b",
        "# a" + " #" * (LENGTH // 2) + "b",
        "#a" + " " * LENGTH + "b",
        "a\n" + "=" * LENGTH + "b",
        "```\n~~~\n" * (LENGTH // 8),
        "~~~\n" + "```x\n" * (LENGTH // 5),
        ("x" * 99 + "\n") * (LENGTH // 100),
    ],
)
def test_markdown_is_read_in_linear_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text)
    start = time.process_time()
    document = parse_prose(path)
    assert time.process_time() - start < 1.0
    assert document is not None and document.text


def _damaged_parquet(path: Path) -> None:
    table = pa.table({"id": [f"{n}" for n in range(5_000)], "text": ["text"] * 5_000})
    pq.write_table(table, path, row_group_size=1_000, use_dictionary=False, compression="zstd")
    data = bytearray(path.read_bytes())
    at = len(data) * 3 // 4
    data[at : at + 200] = b"\xff" * 200
    path.write_bytes(data)


def _parquet_bomb(path: Path) -> None:
    """A few kilobytes that decompress to 32 MiB in each of a thousand rows."""
    text = pa.array(["x" * (32 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int32()), text)
    names = pa.array([f"{n}" for n in range(1_000)])
    pq.write_table(pa.table({"id": names, "text": column}), path, compression="zstd")


HOSTILE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "digits.jsonl": (
        "4300",
        lambda path: path.write_text('{"id": "a", "text": "x", "n": ' + "7" * 5_000 + "}"),
    ),
    "deep.jsonl": (
        "nested too deeply",
        lambda path: path.write_text(
            '{"id": "a", "text": "x", "n": ' + "[" * 500 + "]" * 500 + "}"
        ),
    ),
    "deeper.jsonl": (
        "nested too deeply",
        lambda path: path.write_text('{"a":' * LENGTH),
    ),
    "huge-vector.jsonl": (
        "not a list of numbers",
        lambda path: path.write_text('{"id": "a", "text": "x", "v": [1' + "0" * 400 + "]}"),
    ),
    "line.jsonl": (
        "bytes allowed in a line",
        lambda path: path.write_bytes(b'{"id": "' + b"x" * json_lines.MAX_LINE_BYTES + b'"}'),
    ),
    "cell.csv": (
        "characters allowed",
        lambda path: path.write_text("id,text\na,x\nb," + "x" * MAX_LINE_CHARACTERS),
    ),
    "quote.csv": (
        "close the quotes",
        lambda path: path.write_text(
            'id,text\na,x\nb,"' + ("x" * 30 + "\n") * (MAX_LINE_CHARACTERS // 30)
        ),
    ),
    "vector.csv": (
        "not a JSON list of numbers",
        lambda path: path.write_text(f"id,text,v\na,x,{'[' * LENGTH}\n"),
    ),
    "damaged.parquet": ("not a readable Parquet file", _damaged_parquet),
    "no.parquet": ("not a readable Parquet file", lambda path: path.write_bytes(b"no table")),
    "bomb.parquet": ("memory", _parquet_bomb),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_counts_as_malformed_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A quarter of the memory that a reader has fills up four times as fast.
    small = partial(SandboxReader, memory_bytes=1 << 30)
    monkeypatch.setattr("index_builder.readers.corpus.SandboxReader", small)
    reason, write = HOSTILE[name]
    write(tmp_path / name)
    (tmp_path / "z.jsonl").write_text(GOOD)
    vector = "v" if "vector" in name else ""
    if vector:
        (tmp_path / "z.jsonl").write_text('{"id": "good", "text": "x", "v": [1]}\n')
    bad_rows = BadRows()
    rows = list(Corpus([tmp_path], DocumentColumns(vector=vector)).rows(bad_rows))
    assert rows[-1].item.id == "good"
    assert bad_rows.count == 1
    assert bad_rows.sample[0].location.source == str(tmp_path / name)
    assert reason in bad_rows.sample[0].reason
    assert len(bad_rows.sample[0].reason) < 1_000


def test_a_file_that_ends_its_reader_costs_the_builder_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    _parquet_bomb(path)
    assert path.stat().st_size < 100_000
    reader = SandboxReader(memory_bytes=1 << 30)
    try:
        with pytest.raises(DamagedFile, match="memory"):
            list(reader.read(path, "bomb", "bomb", BadRows()))
    finally:
        reader.close()


def test_values_of_every_kind_pass_the_sandbox_unchanged(tmp_path: Path) -> None:
    record = {
        "id": "a",
        "text": "x\u2028\ud800",
        "n": 1 << 62,
        "f": 1e300,
        "nan": float("nan"),
        "deep": {"a": [{"b": None}]},
        "\0": ["datetime", "not a time"],
        "tag": {"\0": ["datetime", "not a time"]},
        "odd": {"\0": [1]},
        "v": [0.1, 2],
    }
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    reader = SandboxReader()
    try:
        (row,) = reader.read(path, "a", "a", BadRows(), DocumentColumns(vector="v"))
    finally:
        reader.close()
    assert row.item.text == record["text"]
    attributes = dict(row.item.attributes)
    assert str(attributes.pop("nan")) == "nan"
    assert attributes == {key: record[key] for key in ("n", "f", "deep", "\0", "tag", "odd")}
    assert row.item.vector is not None and row.item.vector.tolist() == [
        pytest.approx(0.1),
        2.0,
    ]


def test_a_caller_that_stops_reading_does_not_meet_old_rows_later(tmp_path: Path) -> None:
    many, good = tmp_path / "many.jsonl", tmp_path / "good.jsonl"
    many.write_text("".join(f'{{"id": "{n}", "text": "x"}}\n' for n in range(10_000)))
    good.write_text(GOOD)
    reader = SandboxReader()
    try:
        rows = reader.read(many, "many", "many", BadRows())
        assert next(rows).item.id == "0"
        del rows
        assert [row.item.id for row in reader.read(good, "g", "g", BadRows())] == ["good"]
    finally:
        reader.close()


def test_a_closed_reader_starts_no_other_process(tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_text(GOOD)
    reader = SandboxReader()
    assert len(list(reader.read(path, "g", "g", BadRows()))) == 1
    reader.close()
    with pytest.raises(DamagedFile, match="closed"):
        list(reader.read(path, "g", "g", BadRows()))
    assert reader._process is None


def test_a_reader_that_ended_while_idle_is_started_again(tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_text(GOOD)
    reader = SandboxReader()
    try:
        for _ in range(2):
            assert len(list(reader.read(path, "g", "g", BadRows()))) == 1
            assert reader._process is not None
            os.kill(reader._process.pid, signal.SIGKILL)
            reader._process.wait()
    finally:
        reader.close()


_PARENT = """
import sys
from pathlib import Path
from index_builder.documents.bad_rows import BadRows
from index_builder.readers.sandbox import SandboxReader
reader = SandboxReader(timeout_s=600)
reader._process = reader._start()
print(reader._process.pid, flush=True)
list(reader.read(Path(sys.argv[1]), "bomb", "bomb", BadRows()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are those of Linux")
def test_the_reader_ends_with_a_killed_worker(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.html"
    bomb.write_text("<div>" * 3_000_000)
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(bomb)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    handle = os.pidfd_open(child)
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert select.select([handle], [], [], 10.0)[0], "the reader outlived its parent"
    finally:
        os.close(handle)
        parent.stdout.close()


def test_the_reader_may_not_write_files_and_has_a_limit_of_cpu_time(tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_text(GOOD)
    reader = SandboxReader(timeout_s=7.0)
    try:
        list(reader.read(path, "g", "g", BadRows()))
        assert reader._process is not None
        limits = Path(f"/proc/{reader._process.pid}/limits").read_text()
    finally:
        reader.close()
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert found["Max file size"] == "0" and found["Max core file size"] == "0"
    assert int(found["Max open files"]) <= 64
    assert int(found["Max address space"]) == 4 << 30
    assert 8 <= int(found["Max cpu time"]) < 60
