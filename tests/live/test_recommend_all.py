"""A list for every user in a table, also after a kill."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from nearline import contract as c
from nearline_cli.local.processes import free_port
from tests.live.test_recommending import served
from tests.live.world import World
from tests.redis_server import needs_redis
from tests.waits import until

pytestmark = [
    pytest.mark.service,
    pytest.mark.long,
    needs_redis,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Returns services with a snapshot that learned from 40 users; no test changes them."""
    async with served(tmp_path_factory.mktemp("served")) as world:
        yield world


async def command(running: World, *words: str, kill_at: Path | None = None) -> tuple[int, str]:
    """Runs the command; with `kill_at` only until that file is there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "nearline_cli.main", "recommend-all", "--json"),
        *("--store", str(running.store), "--address", running.address, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    if kill_at is not None:
        await until(kill_at.exists, timeout_s=60)
        process.send_signal(signal.SIGKILL)
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_every_user_gets_the_list_that_the_service_gives_also_after_a_kill(
    running: World, tmp_path: Path
) -> None:
    out = tmp_path / "recs.parquet"
    words = ("--out", str(out), "-n", "3", "--part", "2")
    first = tmp_path / "recs.parquet.parts" / "00000000.parquet"
    code, _ = await command(running, *words, kill_at=first)
    assert code == -signal.SIGKILL and not out.exists()
    saved = first.stat().st_mtime_ns
    other, said = await command(running, *words[:2], "-n", "4", "--part", "2")
    assert other == 1 and "another n" in json.loads(said)["message"]
    code, said = await command(running, *words)
    assert code == 0, said
    assert json.loads(said)["users"] == 40
    table = pq.read_table(out)
    rows = table.to_pylist()
    assert len(rows) == 40 * 3 and not first.parent.exists()
    assert saved < out.stat().st_mtime_ns
    for user in ("u000", "u017", "u039"):
        reply = await running.client.recommend(c.Audience(user_id=user), c.RecommendOptions(n=3))
        mine = [row for row in rows if row["user_id"] == user]
        assert [row["item_id"] for row in mine] == [one.hit.id for one in reply.recommendations]
        assert [row["rank"] for row in mine] == [1, 2, 3]
        assert {row["snapshot_id"] for row in mine} == {reply.info.snapshot_id}
    code, said = await command(running, *words)
    assert code == 1 and "already exists" in json.loads(said)["message"]


async def test_users_of_a_file_are_taken_and_a_wrong_name_is_refused(
    running: World, tmp_path: Path
) -> None:
    users = tmp_path / "users.txt"
    users.write_text("u001\nnobody\n\nu001\n", "utf-8")
    out = tmp_path / "recs.parquet"
    code, said = await command(running, "--out", str(out), "--users", str(users), "-n", "2")
    assert code == 0, said
    rows = pq.read_table(out).to_pylist()
    assert [(row["user_id"], row["served_by"]) for row in rows] == [
        ("u001", "full"),
        ("u001", "full"),
        ("nobody", "popular"),
        ("nobody", "popular"),
    ]
    code, said = await command(running, "--out", str(tmp_path / "recs.csv"))
    assert code == 2 and ".parquet" in said


async def test_two_at_once_and_a_service_that_is_away_are_told_in_a_sentence(
    running: World, tmp_path: Path
) -> None:
    out = tmp_path / "recs.parquet"
    folder = tmp_path / "recs.parquet.parts"
    folder.mkdir()
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    code, said = await command(running, "--out", str(out))
    assert code == 1 and "another run uses" in json.loads(said)["message"]
    os.close(descriptor)
    for words, wrong in (
        (("--surface", "nope"), "surface 'nope' has no policy"),
        (("--address", f"127.0.0.1:{free_port()}"), "127.0.0.1"),
    ):
        code, said = await command(running, "--out", str(out), *words)
        assert code in (1, 2) and wrong in json.loads(said)["message"]
        assert "bug" not in said and not folder.exists()
