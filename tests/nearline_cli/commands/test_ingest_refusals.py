"""Tests of what `nearline ingest` submits of a folder, and what it refuses by name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nearline import contract as c
from nearline.clients import IngestClient, RetrievalClient
from tests.index_builder.ingest.queue_processes import QueueProcesses
from tests.nearline_cli.commands.test_ingest import ingest, vector_rows
from tests.nearline_cli.conftest import ROOT, Run
from tests.redis_server import needs_redis

__all__ = ["ingest"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]


def test_a_folder_and_addresses_are_submitted_whole(
    tmp_path: Path, ingest: Run, queue_processes: QueueProcesses
) -> None:
    folder = tmp_path / "docs" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text("# A\n\nwords")
    (folder / ".hidden.md").write_text("hidden")
    (folder / "empty.txt").touch()
    (folder / "none.jsonl").touch()
    (folder / "out.txt").symlink_to(ROOT / "README.md")
    (folder / "again.md").symlink_to("a.md")
    (folder / "b.html").write_text("<title>B</title><p>words</p>")
    (folder / "large.txt").write_bytes(b"x" * (c.MAX_FILE_BYTES + 1))
    (folder.parent / "c.csv").write_text("name,body,until\nfolder-c,words,2040-01-01\n")
    (folder.parent / "d.exe").write_text("of no kind")
    (queue_processes.files / "cli.tsv").write_text("id\ttext\nfolder-t\twords\n")
    words = ("--collection", "texts", "--id-column", "name", "--text-column", "body")
    address = f"{queue_processes.files.as_uri()}/cli.tsv"
    done = ingest("docs", address, *words, "--expires-column", "until", "--json")
    record = json.loads(done.stdout)
    said = {
        "docs/deep/out.txt": f"a link that leads out of the folder, to {ROOT}/README.md",
        "docs/deep/empty.txt": "the file is empty; save or export it again, or leave it out",
        "docs/deep/large.txt": "the file has more than the 16777216 bytes that may be sent",
        "docs/deep/none.jsonl": "the file is empty",
    }
    refused = {one["place"]: one["message"] for one in record["refusals"]}
    assert list(refused) == list(said)
    assert all(refused[place].startswith(message) for place, message in said.items())
    assert record["skipped"] == {".exe": 1}
    assert (record["job"]["sources"], record["job"]["indexed"]) == (5, 5), done.stdout

    async def read() -> list[str]:
        async with IngestClient(queue_processes.ingest) as client:
            results = (await client.results(record["job"]["job_id"])).results
            return [one.document_id for one in results]

    found = asyncio.run(read())
    assert found == ["folder-c", "deep/a.md", "deep/again.md", "deep/b.html", address, "folder-t"]
    (tmp_path / "docs" / "photo.png").touch()
    again = ingest("docs", "--collection", "texts", "--no-wait")
    assert "skipped 2 files of other formats: 1 .exe (d.exe), 1 .png (photo.png)" in again.stderr


def test_an_unknown_collection_is_refused_before_anything_is_queued(
    tmp_path: Path, ingest: Run
) -> None:
    (tmp_path / "a.md").write_text("text")
    done = ingest("a.md", "--collection", "txets", "--job", "nowhere")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(
        "nearline: collection 'txets' does not exist, so nothing was queued; the closest names "
        "are: 'texts', 'default'; name another one, or create it: nearline collections create txets"
    )
    assert ingest("a.md", "--collection", "texts", "--job", "nowhere").returncode == 0


def test_tables_that_cannot_be_read_are_refused_and_the_others_are_submitted(
    tmp_path: Path, ingest: Run
) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    (tmp_path / "columns.csv").write_text("key,body\n1,a\n")
    (tmp_path / "good.jsonl").write_text(vector_rows("good-", 2))
    wrong = ("broken.parquet", "columns.csv")
    done = ingest(*wrong, "good.jsonl", "--vector-column", "v")
    assert done.returncode == 1 and "succeeded: 2 indexed" in done.stdout
    assert done.stdout.rstrip().endswith("; 2 refused")
    assert "broken.parquet: broken.parquet is not a readable Parquet file" in done.stderr
    assert "columns.csv: columns.csv has no column v, _id or id" in done.stderr
    done = ingest(*wrong)
    assert (done.returncode, done.stdout) == (1, "nothing was submitted; 2 refused\n")


def test_lists_in_csv_cells_are_reported_and_a_declared_kind_comes_first(
    tmp_path: Path, ingest: Run, nearline: Run, queue_processes: QueueProcesses
) -> None:
    (tmp_path / "songs.csv").write_text("id,text,genres\nlists-1,a,rock|pop\nlists-2,b,jazz\n")
    words = ("songs.csv", "--collection", "texts")

    def genres(watermark: str) -> list[object]:
        async def read() -> c.ItemsReply:
            async with RetrievalClient(queue_processes.retrieval) as client:
                mark = bytes.fromhex(watermark)
                ids = ["lists-1", "lists-2"]
                return await client.get_items(ids, collection="texts", min_watermark=mark)

        return [one.attributes["genres"] for one in asyncio.run(read()).items]

    done = ingest(*words)
    assert done.returncode == 0, done.stderr
    note = 'genres of songs.csv is read as lists, such as ["rock", "pop"]; '
    assert note + "--attribute genres:string keeps the text of its cells" in done.stderr
    done = ingest(*words, "--attribute", "genres:string", "--json")
    record = json.loads(done.stdout)
    assert (done.returncode, record["lists"]) == (0, [])
    assert genres(record["job"]["watermark"]) == ["rock|pop", "jazz"]
    upsert = ("items", "upsert", *words, "--address", queue_processes.retrieval, "--json")
    record = json.loads(nearline(*upsert).stdout)
    (found,) = record["lists"]
    assert (found["attribute"], found["example"]) == ("genres", '["rock", "pop"]')
    assert genres(record["watermark"]) == [["rock", "pop"], ["jazz"]]
    done = nearline(*upsert, "--attribute-columns", "*,text", "--attribute", "genres:words")
    assert done.returncode == 2 and "'genres' is declared of kind 'words'" in done.stderr
