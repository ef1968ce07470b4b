"""Snapshots promoted, rolled back, pruned and swapped, as an operator does it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_builder.pipeline import build_snapshot
from index_builder.records import BuildOptions
from nearline import Item
from nearline import contract as c
from nearline.cli.processes import retrieval_process
from nearline.clients import AdminClient, RetrievalClient
from nearline.snapshot import Store
from tests.cli.conftest import Run, Up

pytestmark = pytest.mark.service


async def second(store: Path) -> tuple[str, str]:
    """Builds another snapshot without promoting it; gives the current one and this one."""
    items = [Item(id="other", text="other", vector=np.ones(32, np.float32))]
    built = await build_snapshot(items, BuildOptions(store=str(store), shards=2, promote=False))
    return Store(store).alias_in_force("default").current, built.snapshot_id


async def test_a_snapshot_is_promoted_rolled_back_and_pruned(store: Path, nearline: Run) -> None:
    first, new = await second(store)

    def run(*words: str) -> list[dict[str, object]]:
        done = nearline("snapshots", *words, "--store", str(store), "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    (record,) = run("promote", new, "--why", "better", "--expect-epoch", "1")
    assert (record["epoch"], record["current"], record["why"]) == (2, new, "better")
    (record,) = run("rollback")
    assert (record["epoch"], record["current"], record["rollback_to_epoch"]) == (3, first, 1)
    shown = {row["snapshot"]: row for row in run("prune", "--keep", "0")}
    assert (shown[first]["kept"], shown[new]["kept"]) == ("current", "younger than an hour")
    shown = {row["snapshot"]: row for row in run("prune", "--keep", "0", "--force")}
    assert (shown[new]["kept"], shown[new]["removed"]) == ("", False)
    assert set(Store(store).snapshot_ids("default")) == {new, first}
    run("prune", "--keep", "0", "--force", "--yes")
    assert Store(store).snapshot_ids("default") == [first]


async def test_a_stale_view_of_the_aliases_is_refused(store: Path, nearline: Run) -> None:
    _, new = await second(store)
    done = nearline("snapshots", "promote", new, "--store", str(store), "--expect-epoch", "7")
    assert done.returncode == 1
    assert "epoch 1 of 'default' is in force, 7 was expected" in done.stderr


async def test_a_router_promotes_and_tells_who_asked(store: Path, nearline: Run) -> None:
    first, new = await second(store)
    async with retrieval_process(store) as router:
        for words, current in ((("promote", new), new), (("rollback",), first)):
            asked = ("snapshots", *words, "--router", router.address, "--wait", "20", "--json")
            done = nearline(*asked)
            assert done.returncode == 0, done.stderr
            record = json.loads(done.stdout)
            assert (record["current"], "@" in record["who"]) == (current, True)
            async with AdminClient(router.address) as admin:
                assert (await admin.serving_status()).collections[0].snapshot_id == current
        _, other = await second(store)
        manifest = Store(store).snapshot_folder("default", other) / "manifest.json"
        # An index of another version of faiss: the files are intact, and cannot be served.
        manifest.write_text(re.sub(r'"faiss_version": "[^"]+"', r'"faiss_version": "0.1"',
                                   manifest.read_text()))  # fmt: skip
        done = nearline("snapshots", "promote", other, "--router", router.address, "--wait", "20")
        assert done.returncode == 1
        assert f"goes on serving {first}: SnapshotMismatch" in done.stderr


def test_swaps_under_load_fail_nothing_and_mix_nothing(nearline: Run) -> None:
    done = nearline(
        *("bench", "swap", "--json", "--rate", "50", "--seconds", "4", "--every", "1"),
        *("--documents", "300", "--drain", "0.5"),
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["requests"], row["failed"], row["mixed"], row["partial"]) == (200, 0, 0, 0), row
    assert row["flips"] == 3
    assert 1 <= row["flips_seen"] <= 3
    assert 0 < row["p50_ms"] <= row["p99_ms"]


async def test_what_is_built_goes_live_in_what_runs(store: Path, up: Callable[..., Up]) -> None:
    running = up("--separate")
    items = [Item(id="new", text="new", vector=np.ones(32, np.float32))]
    built = await build_snapshot(items, BuildOptions(store=str(store), shards=2))
    async with AdminClient(running.address) as admin, RetrievalClient(running.address) as client:
        async with asyncio.timeout(30):
            while (await admin.serving_status()).collections[0].snapshot_id != built.snapshot_id:
                await asyncio.sleep(0.1)
        reply = await client.search(c.Query(vector=np.ones(32, np.float32)))
        assert ([hit.id for hit in reply.hits], reply.info.epoch) == (["new"], 2)
