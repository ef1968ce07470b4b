"""Tests of `nearline jobs` and `nearline worker`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import IngestClient
from nearline_cli.commands.dead_letters import _letter as letter_record
from nearline_cli.local.processes import ingest_process
from nearline_cli.main import main
from tests.index_builder.ingest.queue_processes import DIM, QueueProcesses
from tests.nearline_cli.conftest import Run
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
Asked = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def jobs(queue_processes: QueueProcesses, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns what runs `nearline jobs`, in this process, against the queue that all tests
    share."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        line = ["jobs", *words, "--address", queue_processes.ingest]
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main(line)
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def asked(jobs: Run) -> Asked:
    """Returns what runs it with --json; gives the exit code and the records."""

    def run(*words: str) -> tuple[int, list[dict[str, Any]]]:
        done = jobs(*words, "--json")
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
async def submitted(queue_processes: QueueProcesses) -> c.Job:
    """Returns a job that has ended, of a tenant of its own: three good documents and two bad."""
    tenant = f"n{secrets.token_hex(6)}"
    vector = np.eye(DIM, dtype=np.float32)[0]
    good = [c.Item(id=f"{tenant}-{n}", text="x", vector=vector) for n in range(3)]
    bad = [c.Item(id=f"{tenant}-bad-{n}", title="Title", text="no vector") for n in range(2)]
    async with IngestClient(queue_processes.ingest) as client:
        job = await client.submit([*good, *bad], tenant=tenant, callback_id="cb")
        async for seen in client.watch(job.job_id, timeout_s=60.0):
            job = seen
    return job


def test_jobs_and_results_are_listed(submitted: c.Job, jobs: Run, asked: Asked) -> None:
    job_id, tenant = submitted.job_id, submitted.tenant
    code, (record,) = asked("list", "--tenant", tenant)
    assert (code, record["job_id"], record["state"]) == (0, job_id, "partly_failed")
    assert asked("show", job_id) == (0, [record])
    assert asked("list", "--tenant", tenant, "--state", "failed", "--state", "queued") == (0, [])
    assert asked("list", "--tenant", tenant, "--callback-id", "cb", "--collection", "x") == (0, [])
    assert asked("wait", job_id) == (1, [record])
    code, results = asked("results", job_id)
    assert [one["outcome"] for one in results] == ["indexed"] * 3 + ["dead"] * 2
    assert asked("results", job_id, "--outcome", "dead", "-n", "1") == (0, results[3:4])
    table = jobs("list", "--tenant", tenant).stdout
    assert job_id in table and "partly_failed" in table
    assert "callback_id" in jobs("show", job_id).stdout
    assert "has no model; send a vector" in jobs("results", job_id).stdout
    waited = jobs("wait", job_id)
    assert "partly_failed: 3 indexed, 2 dead" in waited.stdout
    assert f"{tenant}-bad-0: collection" in waited.stderr
    # One that has ended is as it was.
    assert asked("cancel", job_id) == (0, [record])
    assert "3 indexed, 2 dead" in jobs("cancel", job_id).stdout


def test_dead_letters_are_listed_requeued_and_deleted(
    submitted: c.Job, jobs: Run, asked: Asked
) -> None:
    of_tenant = ("--tenant", submitted.tenant)
    code, letters = asked("dead", *of_tenant)
    assert code == 0 and [one["document_id"] for one in letters] == [
        f"{submitted.tenant}-bad-0",
        f"{submitted.tenant}-bad-1",
    ]
    assert "source" not in letters[0]
    assert asked("dead", *of_tenant, "--job", submitted.job_id, "-n", "1") == (0, letters[:1])
    _, (shown, _) = asked("dead", *of_tenant, "--source")
    assert (shown["source"]["title"], shown["source"]["text"]) == ("Title", "no vector")
    table = jobs("dead", *of_tenant, "--source").stdout
    assert letters[0]["letter_id"] in table and "Title — no vector" in table
    # One by its name, and the others all at once.
    code, (again,) = asked("requeue", letters[0]["letter_id"])
    assert (code, again["tenant"], again["sources"]) == (0, submitted.tenant, 1)
    assert asked("wait", again["job_id"])[0] == 1
    done = jobs("requeue", "--all", *of_tenant)
    assert done.returncode == 0
    assert done.stderr.count("requeued 1 as job") == 2
    _, listed = asked("list", *of_tenant)
    assert len(listed) == 4
    for one in listed:
        asked("wait", one["job_id"])
    _, letters = asked("dead", *of_tenant)
    assert len(letters) == 2
    assert asked("delete", letters[0]["letter_id"], "--yes") == (0, [{"deleted": 1}])
    assert "1 deleted" in jobs("delete", "--all", "--yes", *of_tenant).stdout
    assert asked("dead", *of_tenant) == (0, [])
    assert "no dead letters found" in jobs("requeue", "--all", *of_tenant).stderr
    assert asked("delete", "--all", "-y", *of_tenant) == (0, [{"deleted": 0}])


def test_every_kind_of_source_is_shown() -> None:
    from datetime import UTC, datetime

    result = c.IngestResult(
        place=0,
        document_id="a",
        outcome=c.IngestOutcome.DEAD,
        time=datetime(2030, 1, 1, tzinfo=UTC),
    )

    def shown(source: c.IngestSource) -> object:
        letter = c.DeadLetter(
            letter_id="1-1", job_id="j", collection="c", tenant="t", result=result, source=source
        )
        record = letter_record(letter)
        json.dumps(record)
        return record["source"]

    assert shown(c.SourceUrl("file:///a.md")) == {"url": "file:///a.md"}
    assert shown(c.SourceFile("a.md", b"text")) == {"file": "a.md", "content": "text"}
    assert shown(c.SourceFile("a.pdf", b"\xff\x00")) == {"file": "a.pdf", "content_hex": "ff00"}
    whole = shown(c.Item(id="a", attributes={"when": datetime(2030, 1, 1, tzinfo=UTC)}))
    assert isinstance(whole, dict)
    assert whole["attributes"] == {"when": "2030-01-01T00:00:00+00:00"}


def test_the_queue_and_its_workers_are_shown(jobs: Run, asked: Asked) -> None:
    code, (state,) = asked("queue")
    assert (code, len(state["workers"])) == (0, 1)
    assert state["lag"] == state["waiting"] + state["in_hand"] + state["delayed"]
    table = jobs("queue").stdout
    assert "oldest waiting for" in table and state["workers"][0]["worker_id"] in table


async def test_waiting_documents_are_cancelled(tmp_path: Path, nearline: Run) -> None:
    from tests.redis_server import valkey

    async with (
        valkey() as url,
        ingest_process(url) as door,
        IngestClient(door.address) as client,
    ):

        async def run(*words: str) -> Any:
            return await asyncio.to_thread(nearline, "jobs", *words, "--address", door.address)

        await client.submit([c.Item(id="a", text="x")], job_id="waits")
        late = await run("wait", "waits", "--timeout", "0.3")
        assert late.returncode == 1
        assert "did not end within 0.3 s; it continues: nearline jobs wait waits" in late.stderr
        done = await run("cancel", "waits")
        assert "job waits cancelling: 1 left" in done.stdout
        assert json.loads((await run("queue", "--json")).stdout)["waiting"] == 1


@pytest.mark.parametrize(
    ("words", "text", "code"),
    [
        (("show", "nobody"), "there is no job 'nobody'", 1),
        (("wait", "nobody"), "there is no job 'nobody'", 1),
        (("results", "nobody"), "there is no job 'nobody'", 1),
        (("cancel", "a b"), "job_id is 'a b'", 2),
        (("requeue",), "name dead letters, or use --all, but not both", 2),
        (("delete", "1-1", "--all"), "but not both", 2),
        (("requeue", "1-1", "--tenant", "t"), "--tenant and --job can only be used with --all", 2),
        (("requeue", "1-1"), "there is no dead letter '1-1'", 1),
        (("delete", "x", "--yes"), "'x' is not the id of a dead letter", 2),
        (("list", "--state", "lost"), "'lost' is not one of", 2),
    ],
)
def test_misuse_is_refused_with_a_remedy(
    words: tuple[str, ...],
    text: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
    queue_processes: QueueProcesses,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["jobs", *words, "--address", queue_processes.ingest])
    assert (ended.value.code, text in capsys.readouterr().err) == (code, True)


def test_a_worker_lists_its_settings_and_requirements(nearline_process: Run) -> None:
    from index_builder.ingest.settings import WorkerSettings

    shown = nearline_process("worker", "--help")
    assert shown.returncode == 0
    for name in WorkerSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in shown.stdout
    for words, text in (
        ((), "pass --redis URL"),
        (("--redis", "redis://127.0.0.1:1/0"), "pass --retrieval HOST:PORT"),
        (("--batches", "3"), "the nearest known one is batch"),
    ):
        done = nearline_process("worker", *words)
        assert (done.returncode, text in done.stdout + done.stderr) == (2, True)
