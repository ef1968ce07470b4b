"""Files and URLs in the queue: rows, whole documents, and URLs that workers may not read."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.error
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.ingest import fetcher, http_download
from index_builder.ingest.fetcher import fetch
from nearline import contract as c
from nearline.clients import IngestClient, RetrievalClient
from nearline.errors import InvalidRequest, NearlineError, NotReady
from nearline.store.local import LocalFiles
from nearline.store.open import open_files
from nearline_cli.local.processes import ingest_process, worker_process
from tests.index_builder.ingest.queue_processes import QueueProcesses
from tests.index_builder.ingest.web_server import TEXT, web_server
from tests.index_builder.readers.pdf_files import pdf
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]
DEAD, INDEXED, EXPANDED = c.IngestOutcome.DEAD, c.IngestOutcome.INDEXED, c.IngestOutcome.EXPANDED


async def results_of(
    ingest_client: IngestClient, sources: Sequence[c.IngestSource]
) -> tuple[c.Job, list[c.IngestResult]]:
    """Submits sources to the collection that embeds texts; waits for the end of the job."""
    job = await ingest_client.submit(sources, collection="texts")
    async for seen in ingest_client.watch(job.job_id, timeout_s=60.0):
        job = seen
    assert job.ended
    return job, list((await ingest_client.results(job.job_id, page_size=1_000)).results)


def rows(names: Sequence[str]) -> str:
    return "".join(
        json.dumps({"_id": name, "title": f"of {name}", "text": f"text of {name}", "n": at}) + "\n"
        for at, name in enumerate(names)
    )


async def test_rows_and_whole_files_become_documents(
    ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    key = secrets.token_hex(4)
    first, second = f"{key}-1", f"{key}-2"
    table = pa.table({"id": [f"{key}-p"], "text": ["of a table"]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content = rows([first, second]) + "not json\n" + rows([first])
    sources = [
        c.SourceFile(f"{key}/rows.jsonl", content.encode()),
        c.SourceFile(f"{key}/notes.md", b"# Heading\n\nThe words of a note."),
        c.SourceFile(f"{key}/page.html", b"<title>Page</title><p>The words of a page.</p>"),
        c.SourceFile(f"{key}/broken.pdf", b"%PDF-1.4 and nothing more"),
        c.SourceFile(f"{key}/rows.csv", f"id,text\n{key}-c,of a line\n".encode()),
        c.SourceFile(f"{key}/rows.parquet", sink.getvalue().to_pybytes()),
        c.SourceFile(f"{key}/broken.parquet", b"no table"),
        c.SourceFile(f"{key}/Opening hours.v2.txt", b"The words of a text."),
        c.SourceFile(f"{key}/Warranty.PDF", pdf([["The words of a paper."]])),
        c.SourceFile(f"{key}/plain.html", b"<p>The words of a plain page.</p>"),
        c.SourceFile(f"{key}/blank.txt", b" \n"),
    ]
    job, results = await results_of(ingest_client, sources)
    by_id = {one.document_id: one for one in results if one.outcome is INDEXED}
    titles = {
        "notes.md": "Heading",
        "page.html": "Page",
        "Opening hours.v2.txt": "Opening hours.v2",
        "Warranty.PDF": "Warranty",
        "plain.html": "plain",
    }
    whole = {f"{key}/{name}" for name in titles}
    good = {first, second, f"{key}-c", f"{key}-p", *whole}
    assert by_id.keys() == good
    assert job.state is c.JobState.PARTLY_FAILED
    # Three files of rows were read; one is unreadable. Of 4 + 1 + 1 rows, 2 are malformed.
    assert (job.sources, job.indexed, job.dead, job.documents) == (11, 9, 5, 14)
    expanded = {one.document_id for one in results if one.outcome is EXPANDED}
    assert expanded == {f"{key}/rows.jsonl", f"{key}/rows.csv", f"{key}/rows.parquet"}
    dead = {one.document_id: one.message for one in results if one.outcome is DEAD}
    assert dead.keys() == {
        *(f"{key}/rows.jsonl:3", f"{key}/rows.jsonl:4", f"{key}/broken.pdf"),
        *(f"{key}/broken.parquet", f"{key}/blank.txt"),
    }
    assert "the file has no text" in dead[f"{key}/blank.txt"]
    assert "not JSON" in dead[f"{key}/rows.jsonl:3"]
    assert f"item {first!r} occurs twice" in dead[f"{key}/rows.jsonl:4"]
    # Places: the files in order, followed by the documents of each.
    assert [one.place for one in results] == list(range(17))
    async with RetrievalClient(queue_processes.retrieval) as client:
        read = await client.get_items(
            [first, f"{key}/notes.md"], collection="texts", min_watermark=job.watermark
        )
        files = await client.get_items(sorted(whole), collection="texts")
    assert {one.id.partition("/")[2]: one.title for one in files.items} == titles
    assert [(one.title, one.text, one.attributes) for one in read.items] == [
        (f"of {first}", f"text of {first}", {"n": 0}),
        ("Heading", "The words of a note.", {"path": f"{key}/notes.md"}),
    ]
    await ingest_client.delete_dead_letters(
        [one.letter_id for one in (await ingest_client.dead_letters(job_id=job.job_id)).letters]
    )


async def test_a_file_of_more_rows_than_a_page_is_expanded_whole(
    ingest_client: IngestClient,
) -> None:
    key = secrets.token_hex(4)
    names = [f"{key}-{n}" for n in range(450)]
    job, results = await results_of(
        ingest_client, [c.SourceFile("many.jsonl", rows(names).encode())]
    )
    assert (job.state, job.sources, job.documents) == (c.JobState.SUCCEEDED, 1, 450)
    assert [one.document_id for one in results] == ["many.jsonl", *names]


async def test_a_file_larger_than_the_queue_is_expanded_in_parts(
    queue_processes: QueueProcesses,
) -> None:
    key = secrets.token_hex(4)
    names = [f"{key}-{n}" for n in range(70)]
    most = ["--max-queued", "40"]
    async with valkey() as url:
        async with (
            ingest_process(url, most) as process,
            worker_process(url, queue_processes.retrieval, ["--poll-s", "0.02", *most]),
            IngestClient(process.address) as client,
        ):
            file = c.SourceFile("many.jsonl", rows(names).encode())
            job, results = await results_of(client, [file])
    assert (job.state, job.documents) == (c.JobState.SUCCEEDED, 70)
    assert [one.document_id for one in results] == ["many.jsonl", *names]


async def test_urls_are_read_if_the_operator_allows_them(
    ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    key, files = secrets.token_hex(4), queue_processes.files
    (files / f"{key} a.jsonl").write_text(rows([f"{key}-1"]))
    (files / f"{key} opening hours.txt").write_text("We open at nine.")
    named = f"{files.as_uri()}/{urllib.parse.quote(f'{key} opening hours.txt')}"
    outside = files.parent / f"{key}.md"
    outside.write_text("nobody may read this")
    (files / f"{key}.md").symlink_to(outside)
    web = queue_processes.web
    good = f"{files.as_uri()}/{urllib.parse.quote(f'{key} a.jsonl')}"
    wrong = {
        outside.as_uri(): "workers may not read",
        f"{files.as_uri()}/{key}.md": "outside the folders that workers may read",
        f"{files.as_uri()}/../{key}.md": "contains a .. segment",
        f"{files.as_uri()}/%2e%2e/{key}.md": "contains a .. segment",
        f"{files.as_uri()}/nothing.md": "No such file",
        f"{files.as_uri()}/%00.md": "null byte",
        f"{web}/secret/a.md": "workers may not read",
        f"{web}/in/moved.md": "/secret/a.md; submit that URL instead, if it is allowed",
        f"{web}/in/%2e%2e/secret.md": "contains a .. segment",
        f"{web}/in/nothing.md": "404",
        f"{web}/in/503.md": "503",
        f"{web}/in/cut.md": "100 more expected",
        "s3://bucket/a.md": "workers may not read",
    }
    sources = [c.SourceUrl(one) for one in (good, named, f"{web}/in/a.md", *wrong)]
    job, results = await results_of(ingest_client, sources)
    assert (job.indexed, job.dead) == (3, len(wrong))
    async with RetrievalClient(queue_processes.retrieval) as client:
        [read] = (await client.get_items([named], collection="texts")).items
    assert read.title == f"{key} opening hours"
    by_id = {one.document_id: one for one in results}
    assert by_id[good].outcome is EXPANDED
    assert {by_id[f"{key}-1"].outcome, by_id[f"{web}/in/a.md"].outcome} == {INDEXED}
    for address, message in wrong.items():
        assert (by_id[address].outcome, message in by_id[address].message) == (DEAD, True), by_id[
            address
        ].message
    # Transient errors are retried, twice here; the others are not.
    tried = {one.document_id for one in results if one.attempts > 1}
    assert tried == {f"{web}/in/503.md", f"{web}/in/cut.md"}
    letters = await ingest_client.dead_letters(job_id=job.job_id)
    await ingest_client.delete_dead_letters([one.letter_id for one in letters.letters])


async def test_the_signature_of_a_url_is_in_no_id_item_or_message(
    ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    folder = f"{queue_processes.web}/in/{secrets.token_hex(4)}"
    names = ("a.md", "404.md", "moved.md", "cut.md")
    signed = [f"{folder}/{one}?X-Amz-Expires=9&X-Amz-Signature=secret" for one in names]
    signed.append(f"{queue_processes.web}/b.md?sig=secret")
    job, results = await results_of(ingest_client, [c.SourceUrl(one) for one in signed])
    async with RetrievalClient(queue_processes.retrieval) as client:
        [read] = (await client.get_items([f"{folder}/a.md"], collection="texts")).items
    letters = (await ingest_client.dead_letters(job_id=job.job_id)).letters
    await ingest_client.delete_dead_letters([one.letter_id for one in letters])
    assert (job.indexed, job.dead, len(letters)) == (1, 4, 4)
    assert {one.document_id for one in results} == {one.partition("?")[0] for one in signed}
    assert "secret" not in repr((read, results, letters)).replace("/secret/a.md", "")


async def test_later_changes_win_over_queued_documents(
    ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    file = queue_processes.files / f"{secrets.token_hex(4)}.md"
    address = file.as_uri()
    async with RetrievalClient(queue_processes.retrieval) as client:
        for change in ("upsert", "delete", "none"):
            job, _ = await results_of(ingest_client, [c.SourceUrl(address)])
            assert job.state is c.JobState.FAILED
            (letter,) = (await ingest_client.dead_letters(job_id=job.job_id)).letters
            file.write_text(f"as it was submitted before {change}")
            mark = b""
            if change == "upsert":
                item = c.Item(id=address, text="changed later")
                mark = (await client.upsert_items([item], collection="texts")).watermark
            elif change == "delete":
                mark = (await client.delete_items([address], collection="texts")).watermark
            again = await ingest_client.requeue([letter.letter_id])
            async for seen in ingest_client.watch(again.job_id, timeout_s=60.0):
                again = seen
            assert again.state is c.JobState.SUCCEEDED
            read = await client.get_items(
                [address], collection="texts", min_watermark=mark or again.watermark
            )
            texts = [one.text for one in read.items]
            counts = (again.superseded, again.indexed)
            if change == "none":
                assert (counts, texts) == ((0, 1), ["as it was submitted before none"])
            else:
                left = ["changed later"] if change == "upsert" else []
                assert (counts, texts) == ((1, 0), left)
            file.unlink()


@pytest.mark.parametrize("beside", ["https://host.example/", "s3://bucket/", "file://{}/other/"])
def test_a_link_leads_nowhere_beyond_the_prefix_of_its_own_url(tmp_path: Path, beside: str) -> None:
    for name in ("in", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "in" / "out.txt").symlink_to(tmp_path / "other" / "a.txt")
    (tmp_path / "in" / "same.txt").symlink_to(tmp_path / "in" / "a.txt")
    allowed, target = (f"file://{tmp_path}/in/", beside.format(tmp_path)), tmp_path / "copy"
    fetch(f"file://{tmp_path}/in/same.txt", allowed, target)
    assert target.read_text() == "in"
    with pytest.raises(InvalidRequest, match="outside the folders that workers may read"):
        fetch(f"file://{tmp_path}/in/out.txt", allowed, target)


def test_errors_of_fetching_a_url(tmp_path: Path) -> None:
    target = tmp_path / "copy.md"
    with web_server() as web:
        allowed = (f"{web}/in/",)
        fetch(f"{web}/in/a.md", allowed, target)
        assert target.read_bytes() == TEXT
        for name in ("408", "425", "429", "500", "503", "599", "cut"):
            with pytest.raises(NotReady) as caught:
                fetch(f"{web}/in/{name}.md", allowed, target)
            assert caught.value.retry_after_s
        for name in ("gone", "400", "403", "499", "moved", "a b", "\x00"):
            with pytest.raises(InvalidRequest):
                fetch(f"{web}/in/{name}.md", allowed, target)
        with pytest.raises(InvalidRequest, match=": none"):
            fetch(f"{web}/in/a.md", (), target)
    with pytest.raises(NotReady, match="refused"):
        fetch(f"{web}/in/a.md", allowed, target)


@pytest.mark.parametrize("name", ["503.md", "gone.md"])
def test_the_connection_of_a_refused_request_is_closed(tmp_path: Path, name: str) -> None:
    with web_server() as web, pytest.raises(NearlineError) as caught:
        fetch(f"{web}/in/{name}", (f"{web}/in/",), tmp_path / "copy.md")
    answer = caught.value.__cause__
    assert isinstance(answer, urllib.error.HTTPError) and answer.closed


@pytest.mark.parametrize("name", ["drip-body.md", "drip-head.md"])
def test_a_server_that_sends_a_byte_at_a_time_is_left_after_the_time_in_all(
    tmp_path: Path, name: str
) -> None:
    with web_server() as web:
        start = time.monotonic()
        with pytest.raises(NotReady, match=r"not read within 0.5 s.*--fetch-s"):
            fetch(f"{web}/in/{name}", (f"{web}/in/",), tmp_path / "copy.md", 0.5)
        assert time.monotonic() - start < 5.0


def test_a_file_or_object_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "large.md").open("wb") as file:
        file.truncate(http_download.MAX_BYTES + 1)
    allowed = (f"{tmp_path.as_uri()}/", "s3://bucket/in/")
    monkeypatch.setattr(fetcher, "open_files", lambda folder: open_files(str(tmp_path)))

    def unread(self: LocalFiles, *arguments: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(LocalFiles, "read", unread)
    monkeypatch.setattr(LocalFiles, "blocks", unread)
    for address in ((tmp_path / "large.md").as_uri(), "s3://bucket/in/large.md"):
        with pytest.raises(InvalidRequest, match="are allowed: split it"):
            fetch(address, allowed, tmp_path / "copy.md")
    assert not (tmp_path / "copy.md").exists()
    os.mkfifo(tmp_path / "pipe.md")
    with pytest.raises(InvalidRequest, match="not a file"):
        fetch((tmp_path / "pipe.md").as_uri(), allowed, tmp_path / "copy.md")


def test_a_full_disk_is_retried(tmp_path: Path) -> None:
    source = tmp_path / "a.md"
    source.write_text("x" * 100_000)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(NotReady, match="No space left"):
        fetch(source.as_uri(), (f"{tmp_path.as_uri()}/",), tmp_path / "full")


def test_a_missing_object_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "open_files", lambda folder: open_files(str(tmp_path)))
    with pytest.raises(InvalidRequest, match="the object does not exist"):
        fetch("s3://bucket/in/a.md", ("s3://bucket/in/",), tmp_path / "copy.md")
    (tmp_path / "a.md").write_text("here")
    fetch("s3://bucket/in/a.md", ("s3://bucket/in/",), tmp_path / "copy.md")
    assert (tmp_path / "copy.md").read_text() == "here"
