"""Tests of `nearline ingest` against a real queue: completion, resumption and errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nearline import contract as c
from nearline.clients import IngestClient
from nearline_cli.local.processes import free_port, ingest_process, worker_process
from nearline_cli.main import main
from nearline_cli.views import job_view
from tests.index_builder.ingest.queue_processes import DIM, QueueProcesses
from tests.nearline_cli.conftest import ROOT, Run, command
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]


def vector_rows(prefix: str, count: int) -> str:
    """Returns JSON lines of documents with vectors."""
    return "".join(
        json.dumps(
            {"id": f"{prefix}{n}", "text": f"{n}", "v": [float(at == n % DIM) for at in range(DIM)]}
        )
        + "\n"
        for n in range(count)
    )


@pytest.fixture
def ingest(nearline: Run, queue_processes: QueueProcesses) -> Run:
    """Returns what runs `nearline ingest` against the queue that all tests share."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return nearline("ingest", *words, "--address", queue_processes.ingest)

    return run


@contextlib.asynccontextmanager
async def idle_queue(*arguments: str) -> AsyncIterator[tuple[str, IngestClient]]:
    """Runs a queue without workers; gives its Redis and a client of its door."""
    async with (
        valkey() as url,
        ingest_process(url, arguments) as door,
        IngestClient(door.address) as client,
    ):
        yield url, client


async def until(client: IngestClient, wanted: Callable[[c.Job], bool]) -> c.Job:
    """Waits until there is such a job, the only one of its queue."""
    async with asyncio.timeout(30):
        while not (jobs := (await client.jobs()).jobs):
            pass
        async for job in client.watch(jobs[0].job_id):
            if wanted(job):
                return job
    raise AssertionError("it ended before")


def test_rows_are_indexed_and_failures_are_reported(tmp_path: Path, ingest: Run) -> None:
    broken = '{"id": "no-vector", "text": "x"}\n{"text": "no id"}\n{"id": "two", "v": [[1], [2]]}\n'
    broken += '{"id": "none", "v": 1.0}\n{"id": "many", "n": 99999999999999999999, "text": "x"}\n'
    (tmp_path / "rows.jsonl").write_text(vector_rows("rows-", 600) + broken + "no json\n")
    words = ("rows.jsonl", "--vector-column", "v", "--tenant", "rows", "--priority", "high")
    done = ingest(*words, "--callback-id", "cb", "--result-ttl", "1h", "--json")
    assert done.returncode == 1, done.stderr
    record = json.loads(done.stdout)
    job = record["job"]
    assert (job["state"], job["tenant"], job["priority"], job["callback_id"]) == (
        *("partly_failed", "rows", "high"),
        "cb",
    )
    assert (job["sources"], job["indexed"], job["dead"], job["left"]) == (601, 600, 1, 0)
    assert (record["refused"], [one["place"] for one in record["refusals"]]) == (
        5,
        [f"rows.jsonl:{line}" for line in range(602, 607)],
    )
    again = ingest(*words)
    assert again.returncode == 1
    assert "partly_failed: 600 indexed, 1 dead in" in again.stdout and "; 5 refused" in again.stdout
    assert "rows.jsonl:602: the id is missing" in again.stderr
    assert "no-vector: collection 'default' has no model" in again.stderr
    assert "nearline letters list --job" in again.stderr
    (tmp_path / "good.jsonl").write_text(vector_rows("rows-", 3))
    good = ingest("good.jsonl", "--vector-column", "v")
    assert (good.returncode, good.stderr) == (0, "")


def test_parquet_is_read_locally_and_no_wait_returns_at_once(
    tmp_path: Path, ingest: Run, nearline: Run, queue_processes: QueueProcesses
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["q1", "q2"], "text": ["a", "b"]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text('{"id": "q3", "text": "c"}\n')
    words = ("rows.parquet", "rows.jsonl", "--collection", "texts", "--no-wait")
    done = ingest(*words, "--job", "named-job")
    assert done.returncode == 0, done.stderr
    assert "job named-job" in done.stdout and "nearline jobs wait named-job" in done.stderr
    waited = nearline("jobs", "wait", "named-job", "--address", queue_processes.ingest, "--json")
    assert (waited.returncode, json.loads(waited.stdout)["indexed"]) == (0, 3)


async def test_a_job_continues_where_it_stopped(
    tmp_path: Path, nearline: Run, queue_processes: QueueProcesses
) -> None:
    (tmp_path / "rows.jsonl").write_text(vector_rows("on-", 700))
    from nearline_cli.inputs.item_columns import ItemColumns
    from nearline_cli.inputs.rejects import Rejects
    from nearline_cli.inputs.sources import find_sources, read_sources

    named = find_sources([str(tmp_path / "rows.jsonl")])
    columns = ItemColumns(vector_column="v")
    given = [one.source for one in read_sources(named, columns, Rejects(True))]

    async def run(*words: str) -> subprocess.CompletedProcess[str]:
        fixed = (
            "rows.jsonl",
            "--vector-column",
            "v",
            "--address",
            queue_processes.ingest,
            "--json",
        )
        return await asyncio.to_thread(nearline, "ingest", *fixed, *words)

    async with IngestClient(queue_processes.ingest) as client:
        await client.submit(given[:100], job_id="goes-on", more=True)
        done = await run("--job", "goes-on")
        assert done.returncode == 0, done.stderr
        job = json.loads(done.stdout)["job"]
        assert (job["sources"], job["indexed"], job["open"]) == (700, 700, False)
        # All of it is there, and ended: nothing is submitted again.
        done = await run("--job", "goes-on")
        assert (done.returncode, json.loads(done.stdout)["job"]) == (0, job)
        # All of it is there, and nobody said so.
        await client.submit(given, job_id="all-there", more=True)
        done = await run("--job", "all-there")
        assert (done.returncode, json.loads(done.stdout)["job"]["indexed"]) == (0, 700)
        (tmp_path / "rows.jsonl").write_text(vector_rows("on-", 699))
        done = await run("--job", "goes-on")
        assert done.returncode == 2 and "has 700 sources, but only 699 were named" in done.stderr
        (tmp_path / "rows.jsonl").write_text(vector_rows("on-", 701))
        done = await run("--job", "goes-on")
        assert done.returncode == 1 and "is closed for more sources" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("gone.jsonl",), "there is no gone.jsonl"),
        (("a.exe",), "is of an unknown kind"),
        (("a.npy",), "is of an unknown kind"),
        (("empty",), "no file in empty can be read"),
        (("one", "two"), "would both be document 'a.md'"),
        (("ftp://host/a.md",), "has no scheme that workers can read"),
        (("https://host/a",), "has no known file type"),
        (("one", "--result-ttl", "soon"), "--result-ttl 'soon' is not a duration"),
        (("one", "--result-ttl", "31d"), "result_ttl is 2.6784e+06 s"),
        (("one", "--job", "a b"), "job_id is 'a b'"),
        (("one", "--collection", "a/b"), "collection name 'a/b' is not allowed"),
        (("one", "--tenant", " "), "tenant is empty"),
        (("one", "--tenant", "t" * 129), "tenant has 129 bytes"),
        (("blank.jsonl",), "no documents found"),
    ],
)
def test_misuse_is_refused_before_anything_is_submitted(
    words: tuple[str, ...],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    queue_processes: QueueProcesses,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "one", "two"):
        Path(folder).mkdir()
    for name in ("a.exe", "a.npy", "one/a.md", "two/a.md", "blank.jsonl"):
        Path(name).write_text("\n")
    with pytest.raises(SystemExit) as ended:
        main(["ingest", *words, "--address", queue_processes.ingest])
    assert (ended.value.code, text in capsys.readouterr().err) == (2, True)


def test_an_unreachable_service_is_reported_at_once(tmp_path: Path, nearline: Run) -> None:
    (tmp_path / "a.md").touch()
    done = nearline("ingest", "a.md", "--address", "127.0.0.1:1")
    assert done.returncode == 1 and "does not answer" in done.stderr


def start(folder: Path, *words: str, **streams: Any) -> subprocess.Popen[str]:
    environ = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command("ingest", *words), cwd=folder, env=environ, text=True, **streams
    )


async def test_an_interrupted_command_says_how_to_continue(tmp_path: Path) -> None:
    rows = vector_rows("", 600)
    (tmp_path / "rows.jsonl").write_text(rows)
    async with idle_queue() as (_, client):
        words = ("--vector-column", "v", "--address", client.address)
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        with start(tmp_path, "-", *words, **pipes) as process:
            assert process.stdin is not None
            process.stdin.write(rows)
            process.stdin.flush()
            # A second request is not begun before it is known that there is more than it.
            job = await until(client, lambda job: job.sources == 256)
            process.send_signal(signal.SIGINT)
            _, error = await asyncio.to_thread(process.communicate)
        assert process.returncode == 130
        # The signal may come before the reply to the first request.
        unknown = f"it is not known whether job {job.job_id} received anything"
        heard = unknown if unknown in error else f"job {job.job_id} has 256 sources"
        assert f"{heard}: run the same command with --job {job.job_id}" in error
        command = ("rows.jsonl", *words, "--job", job.job_id)
        with start(tmp_path, *command, **pipes) as process:
            await until(client, lambda job: job.sources == 600 and not job.open)
            process.send_signal(signal.SIGINT)
            _, error = await asyncio.to_thread(process.communicate)
        assert process.returncode == 130
        if f"run the same command with --job {job.job_id}" in error:
            # It was interrupted between the last request and its reply.
            with start(tmp_path, *command, "--wait", "1s", **pipes) as process:
                _, error = await asyncio.to_thread(process.communicate)
        assert f"job {job.job_id} is fully submitted, and workers continue with it" in error
        assert (await client.queue()).waiting == 600


async def test_submission_waits_while_the_queue_is_full(
    tmp_path: Path, nearline: Run, queue_processes: QueueProcesses
) -> None:
    (tmp_path / "rows.jsonl").write_text(vector_rows("full-", 300))
    async with idle_queue("--max-queued", "300") as (url, client):
        items = [c.Item(id=f"before-{n}", text="no vector") for n in range(200)]
        await client.submit(items, job_id="before")
        words = ("rows.jsonl", "--vector-column", "v", "--address", client.address, "--json")
        submitting = asyncio.create_task(asyncio.to_thread(nearline, "ingest", *words))
        worker = ("--redis", url, "--retrieval", queue_processes.retrieval, "--poll-s", "0.02")
        process = await asyncio.create_subprocess_exec(*command("worker", *worker), cwd=ROOT)
        done = await submitting
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["job"]["indexed"] == 300
        # It became the worker itself, which gives back what it has and ends well.
        process.terminate()
        assert await process.wait() == 0


async def test_submission_waits_while_the_service_restarts(
    tmp_path: Path, queue_processes: QueueProcesses
) -> None:
    (tmp_path / "rows.jsonl").write_text(vector_rows("back-", 40))
    async with valkey() as url:
        where = ["--port", str(free_port())]
        async with ingest_process(url, where) as door, IngestClient(door.address) as client:
            words = ("rows.jsonl", "--vector-column", "v", "--address", door.address, "--json")
            process = start(tmp_path, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            await until(client, lambda job: job.sources == 40)
        working = worker_process(url, queue_processes.retrieval)
        async with ingest_process(url, where), working:
            out, error = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, error
    assert json.loads(out)["job"]["indexed"] == 40


async def test_an_unknown_outcome_is_reported_as_unknown(tmp_path: Path, nearline: Run) -> None:
    (tmp_path / "rows.jsonl").write_text(vector_rows("", 1))
    async with idle_queue("--max-queued-bytes", str(1 << 20)) as (_, client):
        words = ("rows.jsonl", "--vector-column", "v", "--collection", "c" * 10)
        await client.submit([c.Item(id="a", text="x")], job_id="taken", tenant="a", more=True)
        done = await asyncio.to_thread(
            nearline, "ingest", *words, "--job", "taken", "--address", client.address
        )
        # All that was named is there, under other terms: it is closed by whoever may.
        assert (
            done.returncode == 1 and "has a different tenant, collection or priority" in done.stderr
        )
        assert "job taken has 1 source:" in done.stderr
        assert (await client.job("taken")).open


def test_without_a_terminal_progress_is_printed_as_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(job_view, "time", SimpleNamespace(monotonic=lambda: now))
    time = datetime(2030, 1, 1, tzinfo=UTC)
    job = c.Job(job_id="j", state=c.JobState.RUNNING, create_time=time, update_time=time)
    with job_view.job_bar(as_json=False) as show:
        # What was done before it was first seen is no speed of these seconds.
        for seconds, done in (
            (0.0, 1_000),
            (4.0, 1_500),
            (5.0, 2_000),
            (9.0, 2_500),
            (10.0, 3_000),
        ):
            now = 100.0 + seconds
            show(replace(job, sources=5_000, documents=5_000, indexed=done - 1, dead=1))
    with job_view.job_bar(as_json=True) as show:
        show(job)
    assert capsys.readouterr().err.splitlines() == [
        "running: 5,000 submitted, 1,999 indexed, 1 dead, 200 documents/s",
        "running: 5,000 submitted, 2,999 indexed, 1 dead, 200 documents/s",
    ]


async def test_a_terminal_shows_a_progress_bar(
    tmp_path: Path, queue_processes: QueueProcesses
) -> None:
    (tmp_path / "rows.jsonl").write_text(vector_rows("bar-", 30))
    ours, theirs = os.openpty()
    words = ("rows.jsonl", "--vector-column", "v", "--address", queue_processes.ingest)
    with start(tmp_path, *words, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
            while part := await asyncio.to_thread(terminal.read, 1 << 16):
                shown += part
        assert process.stdout is not None and "30 indexed" in process.stdout.read()
    assert process.returncode == 0
    assert b"30 submitted, 30 indexed, 0 dead" in shown and b"30/30" in shown
