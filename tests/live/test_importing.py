"""Interactions of the past reach real services: by the command, which may be killed, and over HTTP;
the next training learns them, but nothing of who was deleted.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import pytest_asyncio
import redis.asyncio

from index_builder.releases.offline_eval import TrainedSnapshot
from nearline import contract as c
from nearline.errors import InvalidRequest, NotFound
from nearline.store.snapshot import Store
from nearline_cli.app import app
from nearline_cli.local.processes import service_process
from retrieval.behaviour.tables import read_tables
from retrieval.users.imports import ImportedInteractions
from tests.index_builder.behaviour.circular_walks import ITEMS
from tests.index_builder.behaviour.trained_snapshots import history_ids
from tests.live.test_recommending import build
from tests.live.world import World, world
from tests.redis_server import needs_redis
from tests.waits import until

pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
NDJSON = {"content-type": "application/x-ndjson"}
ROWS = 450_000


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="running")
async def give_running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("importing")
    await build(folder / "store")
    async with world(folder, shards=2, replicas=1) as running:
        yield running


async def command(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Runs a command with --json, and returns what it prints."""
    capsys.readouterr()
    await asyncio.to_thread(app, (*words, "--json"), standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def contents(running: World, name: str) -> list[bytes]:
    """Returns the parts of an import, in order."""
    imported = ImportedInteractions(Store(running.store), "default")
    return [(running.store / one.path).read_bytes() for one in imported.parts(name).values()]


def write_walks(path: Path, users: Sequence[str]) -> None:
    """Writes users who walk around the circle, an item a day."""
    lines = [
        f"{user},i{(start + day) % ITEMS:02},2024-05-{day + 1:02}"
        for start, user in enumerate(users)
        for day in range(9)
    ]
    path.write_text("\n".join(["user,item,time", *lines]), "utf-8")


async def forget_users(running: World) -> None:
    """Removes what Redis knows of users, as it does after half a year."""
    async with redis.asyncio.Redis.from_url(running.redis_url) as state:
        async for key in state.scan_iter(match="nl:*:u:*"):
            await state.delete(key)


async def test_the_next_training_learns_an_import_but_nothing_of_who_was_deleted(
    running: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, folder = running.client, tmp_path / "months"
    folder.mkdir()
    write_walks(folder / "may.csv", ["past1", "gone"])
    (folder / "june.jsonl").write_text(
        json.dumps({"user": "past2", "item": "i05", "time": "2024-06-01T00:00:00Z"}), "utf-8"
    )
    (folder / "notes.txt").write_text("not to be imported", "utf-8")
    words = ("users", "import", str(folder), "--address", running.address)
    with pytest.raises(InvalidRequest, match="2 files; import them one by one"):
        app((*words, "--import-id", "all"), standalone_mode=False)
    assert (await command(capsys, *words))["recorded"] == 19
    assert not (await client.get_user("past1")).interactions
    receipt = await client.delete_user("gone")
    assert receipt.imports_left_out and not receipt.snapshots
    await forget_users(running)
    assert (await client.get_user("gone")).deleted is None
    items = [{"id": f"i{one:02}", "text": "x", "vector": [1.0] * ITEMS} for one in range(ITEMS)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(one) + "\n" for one in items), "utf-8")
    result = await command(
        capsys, "build", "--corpus", str(corpus), "--vector-column", "vector", "--learn-afresh",
        "--store", str(running.store), "--redis", running.redis_url, "--no-promote",
    )  # fmt: skip
    assert result["behaviour"]["recorded"] == 10
    store = Store(running.store)
    manifest = store.manifest("default", result["snapshot_id"])
    trained = TrainedSnapshot.of(manifest.behaviour, read_tables(store, manifest))
    assert history_ids(trained, "past1")[:2] == ["i08", "i07"]
    assert history_ids(trained, "past2") == ["i05"]
    assert trained.had_by("gone") is None


async def test_a_command_that_is_killed_and_run_again_imports_the_same_state(
    running: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, draw = tmp_path / "many.csv", np.random.default_rng(3)
    user, item = draw.integers(0, 5_000, ROWS), draw.integers(0, ITEMS, ROWS)
    lines = [f"u{one},i{two:02},{n}" for n, (one, two) in enumerate(zip(user, item, strict=True))]
    # Some that cannot be imported, which must not shift the others.
    lines[1_000:1_000] = [",i01,5", "u1,i01,soon"]
    path.write_text("\n".join(["who,item,time", *lines]), "utf-8")
    words = ("users", "import", str(path), "--user-column", "who", "--address", running.address)
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nearline_cli.main", *words, "--import-id", "killed"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await until(lambda: contents(running, "killed"), timeout_s=60)
    client.send_signal(signal.SIGKILL)
    await client.wait()
    before = len(contents(running, "killed"))
    assert 0 < before < 5
    again = await command(capsys, *words, "--import-id", "killed")
    assert again["recorded"] + again["duplicates"] == ROWS
    assert again["duplicates"] >= before * c.IMPORT_PART_ROWS
    assert again["left_out"] == {"no user": 1, "no readable time": 1}
    whole = await command(capsys, *words, "--import-id", "whole")
    assert whole["recorded"] == ROWS
    assert contents(running, "killed") == contents(running, "whole")
    assert len(contents(running, "whole")) == 5
    third = await command(capsys, *words, "--import-id", "whole")
    assert (third["recorded"], third["duplicates"]) == (0, ROWS)
    # The id of an import is that of the content, whatever the file is called.
    copy = tmp_path / "copy.csv"
    write_walks(path, ["ann"])
    write_walks(copy, ["ann"])
    first = await command(capsys, "users", "import", str(path), "--address", running.address)
    second = await command(capsys, "users", "import", str(copy), "--address", running.address)
    assert (first["recorded"], second["recorded"], second["duplicates"]) == (9, 0, 9)


async def test_lines_over_http_are_imported_once(running: World) -> None:
    words = ("--port", "0", "--retrieval", running.address)
    async with (
        service_process("gateway", words, ready_services=()) as gateway,
        httpx2.AsyncClient(headers=NDJSON, timeout=60, trust_env=False) as client,
    ):
        url = f"http://{gateway.address}/v1/collections/default/interactions/import"
        body = "".join(
            json.dumps({"user_id": f"u{one % 99}", "item_id": "i01", "time": one}) + "\n"
            for one in range(c.IMPORT_PART_ROWS + 5)
        )
        where = {"import_id": "web"}
        asked = await client.post(url, params=where)
        assert asked.json() == {"rows": 0, "recorded": 0, "duplicates": 0}
        sent = await client.post(url, params=where, content=body)
        assert sent.json() == {"rows": 100_005, "recorded": 100_005, "duplicates": 0}
        again = await client.post(url, params=where, content=body)
        assert again.json() == {"rows": 100_005, "recorded": 0, "duplicates": 100_005}
        # The rest alone, from a part on.
        rest = "".join(body.splitlines(keepends=True)[c.IMPORT_PART_ROWS :])
        resumed = await client.post(url, params={**where, "first_row": "100000"}, content=rest)
        assert resumed.json() == {"rows": 100_005, "recorded": 0, "duplicates": 5}
        other = await client.post(url, params=where, content=body.replace("i01", "i02"))
        assert other.status_code == 409
        assert "a file that has grown, another import_id" in other.json()["detail"]
        late = '{"user_id": "u", "item_id": "i", "time": 99999999999}'
        refused = await client.post(url, params={"import_id": "late"}, content=late)
        assert refused.status_code == 400
        assert "row 1 of the import has an invalid value in times_us" in refused.json()["detail"]
        missing = await client.post(url.replace("default", "none"), params=where, content=late)
        assert missing.status_code == 404


async def test_a_batch_names_what_the_first_one_names(running: World) -> None:
    batches = [c.InteractionColumns(["u"], ["i"], [1])] * 2

    async def endless() -> AsyncIterator[c.InteractionColumns]:
        for one in batches:
            yield one
        yield c.InteractionColumns(["u"] * (c.MAX_IMPORT_ROWS + 1))

    with pytest.raises(InvalidRequest, match=r"user_ids has 10,001 entries; 0\.\.10,000"):
        await running.client.import_interactions(endless(), import_id="wide")
    with pytest.raises(NotFound):
        await running.client.import_interactions(endless(), import_id="wide", collection="none")
    assert not contents(running, "wide")


async def test_a_dropped_collection_leaves_no_interactions(running: World) -> None:
    await running.admin.create_collection("short", dim=2, why="test")

    async def one() -> AsyncIterator[c.InteractionColumns]:
        yield c.InteractionColumns(["u"], ["i"], [1])

    reply = await running.patiently(
        lambda: running.client.import_interactions(one(), import_id="a", collection="short")
    )
    assert reply == c.ImportReply(1, 1, 0)
    assert (running.store / "short" / "interactions" / "a").is_dir()
    await running.admin.drop_collection("short", why="test")
    await until(lambda: not (running.store / "short" / "interactions").exists(), timeout_s=30)
