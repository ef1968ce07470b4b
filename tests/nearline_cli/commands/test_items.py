"""Tests of `nearline items` against a real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest

from index_builder.documents.bad_rows import BadRow
from nearline import contract as c
from nearline.errors import InvalidRequest, NotReady
from nearline.serving import Registration, running
from nearline.v1 import retrieval_pb2_grpc
from nearline_cli.inputs.item_columns import ItemColumns
from nearline_cli.inputs.item_rows import ItemRow, read_items
from nearline_cli.main import main
from nearline_cli.views.write_tally import WriteTally
from retrieval.changelog.records import ChangeKind
from retrieval.router.servicer import RetrievalServicer
from tests.nearline_cli.conftest import Run, command
from tests.retrieval.writable_collection import Written, written

pytestmark = pytest.mark.service


class Ended(NamedTuple):
    code: int
    out: str
    error: str

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


Asked: TypeAlias = Callable[..., Coroutine[Any, Any, Ended]]


@contextlib.asynccontextmanager
async def served(here: Written, nearline: Run) -> AsyncIterator[Asked]:
    """Serves, and gives what runs `nearline items` against it."""
    servicer = RetrievalServicer(here.service, writer=here.writer)
    kind = Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server),
    )
    async with running([kind]) as address:

        async def ask(*words: str) -> Ended:
            done = await asyncio.to_thread(nearline, "items", *words, "--address", address)
            return Ended(done.returncode, done.stdout, done.stderr)

        yield ask


async def test_items_are_written_shown_and_deleted(tmp_path: Path, nearline: Run) -> None:
    here = written()
    rows = [
        {"_id": "a", "title": "T", "text": "red", "kind": "x", "until": "2040-01-01"},
        {"_id": "b", "text": "blue", "year": "not a year"},
        {"_id": "c", "text": ""},
        {"_id": "a", "text": "newer", "deep": {"er": 1}},
    ]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\nno json\n")
    async with served(here, nearline) as ask:
        words = ("upsert", "items.jsonl", "--expires-column", "until", "--wait", "--json")
        done = await ask(*words)
        assert done.code == 1, done.error
        record = done.record
        assert record["outcomes"] == {"applied": 1, "replaced": 1}
        assert [(one["place"], one["id"], one["reason"]) for one in record["refusals"]] == [
            ("items.jsonl:3", "", "INVALID_REQUEST"),
            ("items.jsonl:2", "b", "INVALID_REQUEST"),
            ("items.jsonl:5", "", "INVALID_REQUEST"),
        ]
        assert record["waited_ms"] is not None
        shown = (await ask("show", "a", "--watermark", record["watermark"], "--json")).record
        assert shown["items"] == [
            {
                "id": "a",
                "version": 2,
                "title": "",
                "text": "newer",
                "attributes": {"deep.er": 1},
                "expires": None,
            }
        ]
        gone = await ask("delete", "a", "zz", "--yes", "--json")
        assert (gone.code, gone.record["outcomes"]) == (0, {"deleted": 1, "absent": 1})
        missing = await ask("show", "a", "--watermark", gone.record["watermark"])
        assert missing.code == 1 and "a: not_found" in missing.error


async def test_items_are_listed_exported_read_back_and_deleted_by_a_filter(
    tmp_path: Path, nearline: Run
) -> None:
    rows = [
        {"id": f"i{number}", "title": "", "text": f"text {number}", "year": 2000 + number}
        for number in range(5)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    async with served(written(), nearline) as ask:
        assert (await ask("upsert", "in.jsonl", "--wait")).code == 0
        listed = (await ask("list", "-n", "3", "--json")).record
        ids = [one["id"] for one in listed["items"]]
        assert (ids, listed["more"]) == (
            ["i0", "i1", "i2"],
            True,
        )
        done = await ask("export", "out.jsonl")
        assert (done.code, "wrote 5 items" in done.error) == (0, True)
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert found == rows
        again = (await ask("upsert", "out.jsonl", "--json")).record
        assert again["outcomes"] == {"replaced": 5}
        refused = await ask("delete", "--filter", "year < 2003")
        assert (refused.code, "add --yes" in refused.error) == (2, True)
        both = await ask("delete", "i1", "--filter", "year < 2003", "--yes")
        assert "ids and --filter were named" in both.error
        unknown = await ask("export", "no.jsonl", "--filter", "price <")
        assert (unknown.code, (tmp_path / "no.jsonl").exists()) == (2, False)


async def test_errors_name_the_line_of_the_file(tmp_path: Path, nearline: Run) -> None:
    here = written()
    (tmp_path / "items.csv").write_text("id,text,year\nx,red,2001\ny,blue,\nz,,2003\n")
    async with served(here, nearline) as ask:
        done = await ask("upsert", "items.csv", "--batch", "1")
        assert done.code == 1
        assert "items.csv:4: text and title are empty" in done.error
        assert "2 applied, 1 refused in" in done.out
        changes = await here.changes()
        assert (changes["x"].attributes, changes["y"].attributes) == ({"year": 2001}, {})
        shown = await ask("show", "x")
        assert shown.code == 0 and "year=2001" in shown.out
        done = await ask("upsert", "items.csv", "--only-attributes", "--text-column", "text")
        assert done.code == 0 and "2 replaced, 1 absent in" in done.out
        change = (await here.changes())["y"]
        assert (change.kind, change.attributes) == (ChangeKind.ATTRIBUTES, {"year": None})
        (tmp_path / "ids").write_text("x\n\ny\nx\n")
        done = await ask("delete", "--ids-from", "ids", "--yes")
        assert done.code == 0 and "2 deleted in" in done.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("upsert", "gone.jsonl"), "there is no file gone.jsonl"),
        (("upsert", "a.pdf"), "nearline build reads other kinds"),
        (("upsert", "x.jsonl", "--batch", "0"), "1..1024 is allowed"),
        (("upsert", "."), ". is a folder; submit it with nearline ingest ."),
        (("delete",), "no ids were named; name ids, --ids-from FILE or --filter"),
        (("delete", "a", "--ids-from", "x"), "ids and --ids-from were named"),
        (("delete", "--ids-from", "gone", "--yes"), "cannot be read"),
        (("show", "a", "--watermark", "xyz"), "not hexadecimal"),
    ],
)
def test_misuse_is_refused_with_a_remedy(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["items", *words])
    assert (ended.value.code, text in capsys.readouterr().err) == (2, True)


async def test_an_error_says_how_many_batches_are_durable(tmp_path: Path, nearline: Run) -> None:
    here = written()
    async with served(here, nearline) as ask:
        (tmp_path / "x.jsonl").write_text('{"id": "a", "text": "red"}\n')
        done = await ask("upsert", "x.jsonl", "--collection", "other")
        assert done.code == 1
        assert "durable" not in done.error


async def test_an_error_of_unknown_outcome_says_to_run_the_command_again() -> None:
    async def write() -> c.WriteReply:
        raise NotReady("it may be lost: try again with the same idempotency key")

    tally = WriteTally(as_json=True)
    with pytest.raises(NotReady, match=r"lost: run the same command again, which is safe$"):
        await tally.take(write)
    tally.batches, tally.counts[c.WriteOutcome.APPLIED], tally.places["a"] = 1, 2, "f:3"
    with pytest.raises(NotReady, match=r"is safe; durable before f:3: 2 items$"):
        await tally.take(write)


@pytest.mark.skipif(sys.platform == "win32", reason="standard input has no path there")
async def test_items_are_read_from_standard_input() -> None:
    here = written()
    servicer = RetrievalServicer(here.service, writer=here.writer)
    kind = Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server),
    )
    async with running([kind]) as address:
        process = await asyncio.create_subprocess_exec(
            *command("items", "upsert", "-", "--json", "--address", address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(b'{"id": "a", "text": "red"}\n{"id": 7, "text": "x"}\n')
    assert json.loads(out)["outcomes"] == {"applied": 2}
    assert sorted(await here.changes()) == ["7", "a"]


def test_bad_rows_are_reported_up_to_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    tally = WriteTally(as_json=False)
    for number in range(30):
        tally.refuse(f"x.jsonl:{number}", "INVALID_REQUEST", "not JSON")
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[-1]) == (21, "… more; --json lists the first 1,000")
    assert (len(tally.bad), tally.bad_count) == (30, 30)


def test_rows_keep_their_place_and_null_attributes(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"id": "a", "text": "x", "n": None, "m": 1, "until": "2040-01-01T00:00:00+02:00"},
        {"text": "no id"},
        {"id": "b", "text": "x", "until": "sometime"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    columns = ItemColumns(expires_column="until")
    first, second, third = read_items(str(file), columns)
    assert isinstance(first, ItemRow) and first.location.line == 1
    assert first.item.expires == datetime(2039, 12, 31, 22, tzinfo=UTC)
    assert first.item.attributes == {"m": 1}
    assert isinstance(second, BadRow) and "the id is missing" in second.reason
    assert isinstance(third, BadRow) and "'until' is 'sometime'" in third.reason
    first, *_ = read_items(str(file), columns, only_attributes=True)
    assert isinstance(first, ItemRow)
    assert (first.item.attributes, first.item.text) == ({"m": 1, "n": None}, "")
    with pytest.raises(InvalidRequest, match="there is no file"):
        list(read_items("nowhere.jsonl", columns))
