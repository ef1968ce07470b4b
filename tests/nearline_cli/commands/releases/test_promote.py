"""Tests of promoting, rolling back and pruning snapshots."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import Item, contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline.store.snapshot import Store
from nearline_cli.local.processes import retrieval_process
from tests.nearline_cli.conftest import Run, Up

pytestmark = pytest.mark.service
FORCED = ("--force", "--why", "the test wants it")


async def second(store: Path) -> tuple[str, str]:
    """Builds another snapshot without promoting it; gives the current one and this one."""
    items = [Item(id="other", text="other", vector=np.ones(32, np.float32))]
    built = await build_snapshot(items, BuildOptions(store=str(store), shards=2, promote=False))
    return Store(store).alias_in_force("default").current, built.snapshot_id


async def test_a_snapshot_is_promoted_rolled_back_and_pruned(store: Path, nearline: Run) -> None:
    first, new = await second(store)

    def run(*words: str) -> list[dict[str, object]]:
        done = nearline("snapshots", *words, "--store", str(store), "--json")
        assert done.returncode == 0 or "add --yes to do it" in done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    # It has another document, and none of those before: the gate is right to refuse it.
    (record,) = run("promote", new, "--force", "--why", "better", "--expect-epoch", "1")
    assert (record["epoch"], record["current"], record["why"]) == (2, new, "better")
    (record,) = run("rollback")
    assert (record["epoch"], record["current"], record["rollback_to_epoch"]) == (3, first, 1)
    shown = {row["snapshot"]: row for row in run("prune", "--keep", "0")}
    assert (shown[first]["kept"], shown[new]["kept"]) == (
        "current",
        "new: a build may still promote it",
    )
    shown = {row["snapshot"]: row for row in run("prune", "--keep", "0", "--force")}
    assert (shown[new]["kept"], shown[new]["removed"]) == ("", False)
    assert set(Store(store).snapshot_ids("default")) == {new, first}
    run("prune", "--keep", "0", "--force", "--yes")
    assert Store(store).snapshot_ids("default") == [first]


async def test_a_stale_view_of_the_aliases_is_refused(store: Path, nearline: Run) -> None:
    _, new = await second(store)
    done = nearline("snapshots", "promote", new, "--store", str(store), "--expect-epoch", "7")
    assert done.returncode == 1
    assert "the current epoch of 'default' is 1, but 7 was expected" in done.stderr


async def test_a_router_promotes_and_records_the_operator(store: Path, nearline: Run) -> None:
    first, new = await second(store)
    async with retrieval_process(store) as router:
        for words, current in ((("promote", new), new), (("rollback",), first)):
            asked = ("snapshots", *words, "--router", router.address, "--wait", "20", "--json")
            done = nearline(*asked, *(FORCED if "promote" in words else ()))
            assert done.returncode == 0, done.stderr
            record = json.loads(done.stdout)
            assert (record["current"], "@" in record["who"]) == (current, True)
            if "promote" in words:
                # The gate judges where the command runs, and here it has no store.
                assert list(Store(store).alias_in_force("default").gate.failed) == ["not judged"]
            async with AdminClient(router.address) as admin:
                assert (await admin.serving_status()).collections[0].snapshot_id == current
        # Other tests run on the same cores.
        calm = ("gate", "set", "--max-latency-ratio", "100", "--why", "a shared machine")
        assert nearline(*calm, "--store", str(store)).returncode == 0
        again = ("snapshots", "promote", new, "--router", router.address, "--store", str(store))
        done = nearline(*again)
        assert done.returncode == 1 and "the release gate refuses" in done.stderr
        assert nearline(*again, *FORCED).returncode == 0
        kept = Store(store).alias_in_force("default").gate
        assert list(kept.failed) == ["missing", "overlap"]
        assert (kept.forced_because, kept.passed) == ("the test wants it", False)
        back = nearline("snapshots", "rollback", "--router", router.address, "--wait", "20")
        assert back.returncode == 0, back.stderr
        _, other = await second(store)
        manifest = Store(store).snapshot_folder("default", other) / "manifest.json"
        # An index of another version of faiss: the files are intact, and cannot be served.
        manifest.write_text(re.sub(r'"faiss_version": "[^"]+"', r'"faiss_version": "0.1"',
                                   manifest.read_text()))  # fmt: skip
        asked = ("snapshots", "promote", other, "--router", router.address, "--wait", "20")
        done = nearline(*asked, *FORCED)
        assert done.returncode == 1
        assert f"still serves {first}: SnapshotMismatch" in done.stderr


async def test_a_new_build_goes_live_in_a_running_router(
    store: Path, up: Callable[..., Up]
) -> None:
    running = up("--separate")
    items = [Item(id="new", text="new", vector=np.ones(32, np.float32))]
    built = await build_snapshot(items, BuildOptions(store=str(store), shards=2))
    async with AdminClient(running.address) as admin, RetrievalClient(running.address) as client:
        async with asyncio.timeout(30):
            while (await admin.serving_status()).collections[0].snapshot_id != built.snapshot_id:
                await asyncio.sleep(0.1)
        reply = await client.search(c.Query(vector=np.ones(32, np.float32)))
        assert ([hit.id for hit in reply.hits], reply.info.epoch) == (["new"], 2)
