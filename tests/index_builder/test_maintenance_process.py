"""Upkeep that is killed, told to stop or out of space in the middle of a build."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.store.snapshot import Store
from nearline_cli.local.processes import free_port, service_process
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.changelog.registry import ChangeLogs
from tests import waits
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]
ROOT = Path(__file__).parents[2]
ITEMS = 300
DIM = 64


class _World:
    """A store with one collection, whose log lacks nothing but one change."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.root, self.redis = folder / "store", redis
        self.store = Store.open(str(self.root))

    async def begin(self) -> None:
        vectors = np.random.default_rng(0).standard_normal((ITEMS, DIM)).astype(np.float32)
        items = [Item(id=f"i{row}", text=f"{row}", vector=one) for row, one in enumerate(vectors)]
        await build_snapshot(items, BuildOptions(store=str(self.root), golden_queries=0))
        logs = ChangeLogs(self.store, self.redis, who="test")
        change = Change(
            document_id="new",
            kind=ChangeKind.UPSERT,
            text="new",
            bounds=np.array([(0, 3)], np.int64),
            vectors={"": np.ones((1, DIM), np.float32)},
        )
        try:
            await logs.log("default").append([ChangeWrite(change, base_version=0)])
        finally:
            await logs.close()

    @property
    def arguments(self) -> list[str]:
        return [
            *("--store", str(self.root), "--redis", self.redis, "--every-s", "0.1"),
            *("--share", "0", "--golden-queries", "0", "--keep", "0", "--grace-s", "2"),
        ]

    @property
    def current(self) -> str:
        return self.store.alias_in_force("default").current

    @property
    def documents(self) -> int:
        return self.store.manifest("default", self.current).documents

    def remains(self) -> list[str]:
        """Returns what a build that ended leaves nowhere."""
        found = [*self.root.rglob(".tmp-*"), *self.root.rglob(".build/*")]
        found += (self.root / "default" / "begun").glob("*")
        return [str(path.relative_to(self.root)) for path in found]

    async def hindered(self, hindrance: str, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.index_builder.hindered_upkeep", hindrance),
            *(*self.arguments, *more),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[_World]:
    async with valkey(tmp_path / "redis") as url:
        world = _World(tmp_path, url)
        await world.begin()
        yield world


async def _read_until(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """Returns the lines of a process up to the one with a word."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(60):
        while not lines or word not in lines[-1]:
            line = await process.stdout.readline()
            assert line, "".join(lines)
            lines.append(line.decode())
    return lines


_until = partial(waits.until, timeout_s=60, every_s=0.05)


@contextlib.contextmanager
def _killed_at_last(process: asyncio.subprocess.Process) -> Iterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.long
@pytest.mark.parametrize("hindrance", ["writing", "gate", "promotion"])
async def test_upkeep_that_is_killed_again_and_again_leaves_little_and_then_nothing(
    world: _World, hindrance: str
) -> None:
    first = world.current
    for _ in range(4):
        process = await world.hindered(hindrance)
        with _killed_at_last(process):
            await _read_until(process, "stalled")
        await process.wait()
        assert world.current == first
        # At most the one of this life, and the newest of an earlier one.
        assert len(world.store.snapshot_ids("default")) <= 3
        assert len(list(world.root.rglob(".tmp-*"))) <= 1
        assert len(list(world.root.rglob("begun/*"))) <= 2
    assert world.remains()
    async with service_process("index_builder.maintenance", world.arguments):
        await _until(lambda: world.documents == ITEMS + 1)
        await _until(lambda: set(world.store.snapshot_ids("default")) == {first, world.current})
        await _until(lambda: not world.remains())
    world.store.verify("default", world.current)


@pytest.mark.long
async def test_a_second_upkeep_builds_nothing_while_the_first_does(world: _World) -> None:
    first = world.current
    process = await world.hindered("gate")
    with _killed_at_last(process):
        await _read_until(process, "stalled")
        before = world.store.snapshot_ids("default")
        second = await world.hindered("gate")
        with _killed_at_last(second):
            lines = await _read_until(second, "another upkeep builds")
            assert "stalled" not in "".join(lines)
            assert world.store.snapshot_ids("default") == before
            process.kill()
            # The lease of the killed one ends, and the second one builds.
            await _read_until(second, "stalled")
            assert world.current == first
        await second.wait()
    await process.wait()


@pytest.mark.parametrize("hindrance", ["writing", "promotion"])
async def test_upkeep_ends_within_its_grace_period_although_a_thread_of_a_build_does_not(
    world: _World, hindrance: str
) -> None:
    first = world.current
    process = await world.hindered(hindrance)
    with _killed_at_last(process):
        await _read_until(process, "stalled")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(8):
            lines = await _read_until(process, "ended in the middle of a build")
            assert await process.wait() == 0, "".join(lines)
    assert world.current == first


async def test_upkeep_whose_work_ends_by_no_ordinary_error_ends_and_is_no_healthy_process(
    world: _World,
) -> None:
    process = await world.hindered("panic")
    with _killed_at_last(process):
        async with asyncio.timeout(30):
            lines = await _read_until(process, "ended by an error")
            assert await process.wait() == 1, "".join(lines)


@pytest.mark.long
@pytest.mark.parametrize("hindrance", ["little space", "more space"])
async def test_upkeep_out_of_space_says_so_lives_on_and_builds_once_there_is_space(
    world: _World, hindrance: str
) -> None:
    first, port = world.current, free_port()
    process = await world.hindered(hindrance, "--metrics-port", str(port))

    def failed() -> float:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
        lines = page.decode().splitlines()
        name = 'nearline_upkeep_failed_builds{collection="default",kind="compaction"} '
        return next((float(one.removeprefix(name)) for one in lines if one.startswith(name)), -1.0)

    with _killed_at_last(process):
        lines = await _read_until(process, "not maintained")
        assert str(world.root) in lines[-1]
        assert "free some space or choose another --" in lines[-1] or "ulimit -f" in lines[-1]
        await _until(lambda: failed() >= 3)
        assert world.current == first
        assert world.store.snapshot_ids("default") == [first]
        assert not list(world.root.rglob(".tmp-*"))
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        await _until(lambda: world.documents == ITEMS + 1)
        await _until(lambda: failed() == 0)
        await _until(lambda: not world.remains())
        assert process.returncode is None
    await process.wait()
