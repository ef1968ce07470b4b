"""Tests of `nearline rollout`: start, status, promote and abort, by the store and by a router."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nearline.clients import AdminClient
from nearline.store.snapshot import Store
from nearline_cli.local.processes import retrieval_process
from retrieval.snapshots.proposals import propose
from tests.live.rolling import QUICK
from tests.nearline_cli.commands.releases.test_gate import Run, build, corpus, run
from tests.nearline_cli.conftest import Run as Command

__all__ = ["run"]


def test_a_rollout_starts_only_if_the_gate_passes(run: Run, tmp_path: Path) -> None:
    old = build(run, corpus(tmp_path, range(50)))["snapshot_id"]
    new = build(run, corpus(tmp_path, range(51)), "--no-promote")["snapshot_id"]
    fewer = build(run, corpus(tmp_path, range(40)), "--no-promote")["snapshot_id"]
    assert run("rollout", "start", fewer, code=1)["error"] == "GATE_FAILED"
    assert "add --why" in run("rollout", "start", fewer, "--force", code=2)["message"]
    assert "above 0 and below 1" in run("rollout", "start", new, "--share", "1", code=2)["message"]
    told = run("rollout", "start", new, "--share", "0.1", "--shadow", "--split-by", "session")
    assert (told["current"], told["canary"], told["epoch"]) == (old, new, 2)
    record = Store(tmp_path / "store").alias_in_force("default")
    assert record.gate.passed and record.rollout.shadow
    # Its report stands: another share asks for no other one.
    more = run("rollout", "start", new, "--share", "0.5", "--latency-ratio", "1.5")
    assert (more["canary_share"], more["shadow"]) == (0.5, False)
    again = Store(tmp_path / "store").alias_in_force("default")
    assert (again.gate, again.rollout.limits.latency_ratio) == (record.gate, 1.5)
    promoted = run("rollout", "promote", "--why", "quicker")
    assert (promoted["current"], promoted["canary"], promoted["why"]) == (new, None, "quicker")
    # Back to what was current before the trial.
    assert run("snapshots", "rollback")["current"] == old


def test_an_aborted_rollout_keeps_the_current_snapshot(run: Run, tmp_path: Path) -> None:
    for command in ("promote", "abort"):
        assert run("rollout", command, code=1)["error"] == "NOT_FOUND"
    old = build(run, corpus(tmp_path, range(50)))["snapshot_id"]
    new = build(run, corpus(tmp_path, range(51)), "--no-promote")["snapshot_id"]
    message = run("rollout", "promote", code=1)["message"]
    assert "nothing" not in message and "start one with `nearline rollout start ID`" in message
    fewer = build(run, corpus(tmp_path, range(40)), "--no-promote")["snapshot_id"]
    told = run("rollout", "start", fewer, "--force", "--why", "fewer on purpose")
    assert told["why"] == "fewer on purpose"
    # Another one takes its place.
    assert run("rollout", "start", new)["canary"] == new
    ended = run("rollout", "abort", "--why", "enough seen")
    assert (ended["current"], ended["canary"], ended["why"]) == (old, None, "enough seen")


def test_a_build_does_not_end_a_rollout(run: Run, tmp_path: Path) -> None:
    old = build(run, corpus(tmp_path, range(50)))["snapshot_id"]
    new = build(run, corpus(tmp_path, range(51)), "--no-promote")["snapshot_id"]
    run("rollout", "start", new)
    refused = build(run, corpus(tmp_path, range(52)), code=1)
    assert refused["error"] == "CONFLICT"
    assert f"would end the trial of {new} against {old}" in refused["message"]
    store = Store(tmp_path / "store")
    assert store.alias_in_force("default").canary == new
    # It is there, for later.
    (newest,) = set(store.snapshot_ids("default")) - {old, new}
    assert f"nearline snapshots promote {newest}" in refused["message"]
    assert run("snapshots", "promote", newest)["current"] == newest


@pytest.mark.service
async def test_a_router_reports_the_status_of_its_rollout(
    run: Run, tmp_path: Path, nearline: Command
) -> None:
    def ask(*words: str) -> str:
        done = nearline("rollout", *words, "--router", router.address)
        assert done.returncode == 0, done.stderr
        return done.stdout

    await asyncio.to_thread(build, run, corpus(tmp_path, range(50)))
    later = corpus(tmp_path, range(51))
    new = (await asyncio.to_thread(build, run, later, "--no-promote"))["snapshot_id"]
    store = tmp_path / "store"
    async with (
        retrieval_process(store, QUICK) as router,
        AdminClient(router.address) as admin,
    ):
        assert "no rollout" in ask("status")
        opened = Store(store)
        propose(opened, "default", new, "drift of score", opened.alias_in_force("default"))
        assert f"nearline snapshots promote {new}" in " ".join(ask("status").split())
        assert json.loads(ask("status", "--json"))["proposed"] == new
        listed = nearline("snapshots", "proposals", "--store", str(store), "--json").stdout
        assert json.loads(listed)["state"] == "open"
        started = ask("start", new, "--share", "0.3", "--store", str(store), "--json")
        assert json.loads(started.splitlines()[-1])["canary"] == new
        async with asyncio.timeout(20):
            while not (await admin.rollout_status()).running:
                await asyncio.sleep(0.05)
        listed = nearline("snapshots", "list", "--store", str(store)).stdout
        assert "current" in listed and "canary" in listed
        shown = ask("status")
        assert "canary" in shown and "latency" in shown
        found = json.loads(ask("status", "--json"))
        assert (await admin.serving_status()).collections[0].canary_snapshot_id == new
        assert found["running"] and set(found["arms"]) == {"current", "canary"}
        assert set(found["tests"]) >= {"latency", "errors", "recall", "sample_ratio"}
        assert [one["verdict"] for one in found["verdicts"]] == ["undecided"] * 2
        assert "decides at" in shown and "unknown" in shown
        assert json.loads(ask("promote", "--wait", "20", "--json"))["current"] == new
        assert "no rollout" in ask("status")
        policies = tmp_path / "policies.toml"
        policies.write_text('version = 3\n[surfaces.home]\npinned = ["d1"]\n')
        words = ("--policies", str(policies), "--share", "0.5", "--min-effect", "0.2")
        assert f"{new} with other policies answers 50.0%" in ask("start", *words)
        async with asyncio.timeout(20):
            while not (status := await admin.rollout_status()).running:
                await asyncio.sleep(0.05)
        assert status.in_force.rollout.limits.min_effect == 0.2
        refused = nearline("rollout", "promote", "--store", str(store))
        assert refused.returncode and "add --address HOST:PORT" in refused.stderr
        ask("promote", "--why", "more clicks")
        assert (await admin.policies()).toml == policies.read_text()
    assert "or policies: --policies FILE" in run("rollout", "start", code=2)["message"]
