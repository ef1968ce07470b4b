"""Tests of the release gate in promote, build, gate and replay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_builder.releases.thresholds import set_thresholds
from nearline.contract.recommendations import Interaction
from nearline.store.snapshot import Store
from nearline_cli.main import main
from retrieval.changelog.registry import ChangeLogs
from tests.index_builder.releases.gate_snapshots import calm
from tests.redis_server import give_redis_url, needs_redis

Run = Callable[..., Any]
__all__ = ["give_redis_url"]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns a function that runs a command on one store; it gives the last JSON line it
    printed."""
    set_thresholds(Store(tmp_path / "store"), "default", calm())

    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--store", str(tmp_path / "store"), "--json"])
        shown = capsys.readouterr()
        assert ended.value.code == code, shown.err
        return json.loads((shown.err if code else shown.out).splitlines()[-1])

    return run


def corpus(folder: Path, ids: range, name: str = "corpus") -> str:
    """Writes documents whose vectors are of their number."""
    path = folder / f"{name}.jsonl"
    rows = []
    for number in ids:
        vector = np.random.default_rng(number).normal(size=8).tolist()
        rows.append(json.dumps({"id": f"d{number}", "text": f"text {number}", "v": vector}))
    path.write_text("\n".join(rows), "utf-8")
    return str(path)


def build(run: Run, path: str, *words: str, code: int = 0) -> Any:
    return run("build", "--corpus", path, "--vector-column", "v", *words, code=code)


def test_a_build_goes_live_only_if_the_gate_passes_it(run: Run, tmp_path: Path) -> None:
    first = build(run, corpus(tmp_path, range(50)))
    assert (first["epoch"], first["gate"]["passed"], first["gate"]["failed"]) == (1, True, [])
    assert build(run, corpus(tmp_path, range(51)))["epoch"] == 2
    store = Store(tmp_path / "store")
    before = store.alias_in_force("default")
    assert before.gate.passed and before.gate.report.endswith("-1.json")
    refused = build(run, corpus(tmp_path, range(40)), code=1)
    assert refused["error"] == "GATE_FAILED"
    assert (
        "is built, but the release gate refuses to serve it:\n  missing: 11 of 51"
        in (refused["message"])
    )
    assert "--force --why REASON" in refused["message"]
    # It is there all the same, and nothing else is served than before.
    assert store.alias_in_force("default") == before
    assert len(store.snapshot_ids("default")) == 3
    forced = build(run, corpus(tmp_path, range(40)), "--force", "--why", "we sell less")
    assert forced["gate"]["forced_because"] == "we sell less"
    record = store.alias_in_force("default")
    assert (record.current, record.gate.passed) == (forced["snapshot_id"], False)
    assert (list(record.gate.failed), record.gate.forced_because) == (["missing"], "we sell less")
    unasked = build(run, corpus(tmp_path, range(50)), "--no-promote")
    assert (unasked["epoch"], unasked["gate"]) == (None, None)


def test_promote_asks_the_gate_and_force_needs_a_reason(run: Run, tmp_path: Path) -> None:
    build(run, corpus(tmp_path, range(50)))
    fewer = build(run, corpus(tmp_path, range(40)), "--no-promote")["snapshot_id"]
    refused = run("snapshots", "promote", fewer, code=1)
    assert refused["error"] == "GATE_FAILED"
    assert "missing: 10 of 50 documents are missing and were not deleted" in refused["message"]
    assert "--force --why REASON" in refused["message"]
    assert "add --why REASON" in run("snapshots", "promote", fewer, "--force", code=2)["message"]
    store = Store(tmp_path / "store")
    assert store.alias_in_force("default").epoch == 1
    told = run("snapshots", "promote", fewer, "--force", "--why", "stock was cut")
    assert told["gate"]["failed"] == ["missing"]
    assert told["gate"]["forced_because"] == "stock was cut"
    assert not json.loads(store.files.read(told["gate"]["report"]))["passed"]
    # Back is one flip, and no gate: what was live once may be live again.
    assert run("snapshots", "rollback")["epoch"] == 3


def test_thresholds_are_set_and_shown(run: Run, tmp_path: Path) -> None:
    build(run, corpus(tmp_path, range(50)))
    fewer = build(run, corpus(tmp_path, range(40)), "--no-promote")["snapshot_id"]
    assert run("snapshots", "gate", fewer, code=1)["error"] == "GATE_FAILED"
    assert run("gate", "set", "--max-missing", "0.3", "--why", "we sell less")["number"] == 2
    assert run("gate", "set", "--min-recall", "0.9")["number"] == 3
    shown = run("gate", "show")
    assert (shown["max_missing"], shown["min_recall"], shown["min_overlap"]) == (0.3, 0.9, 0.5)
    assert [one.rpartition("-")[2] for one in shown["reports"]] == ["1.json", "1.json"]
    report = run("snapshots", "gate", fewer)
    assert (report["passed"], report["thresholds"]) == (True, 3)
    by_name = {one["check"]: one for one in report["checks"]}
    assert by_name["missing"]["limit"] == 0.3 and by_name["missing"]["outcome"] == "passed"
    assert by_name["ndcg"]["outcome"] == "skipped"
    wrong = run("gate", "set", "--max-missing", "7", code=2)
    assert "max_missing is 7; 0..1 is allowed" in wrong["message"]
    labels = tmp_path / "labels"
    (labels / "qrels").mkdir(parents=True)
    (labels / "corpus.jsonl").write_text("{}")
    (labels / "queries.jsonl").write_text('{"_id": "q", "text": "what?"}')
    (labels / "qrels" / "test.tsv").write_text("q\td1\t1\n")
    run("gate", "set", "--labels", str(labels))
    judgements = run("gate", "show")["judgements"]
    assert (tmp_path / f"store/default/gate/judgements/{judgements}.json").is_file()


def test_replay_compares_two_snapshots(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build(run, corpus(tmp_path, range(50)))["snapshot_id"]
    second = build(run, corpus(tmp_path, range(40)), "--no-promote")["snapshot_id"]
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--against", first, second, "--store", f"{tmp_path}/store", "--json"])
    assert ended.value.code == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (row["first"], row["second"], row["source"]) == (first, second, "golden")
    assert row["requests"] == 50 and row["refused"] == 0 and 0 < row["overlap@10"] < 1
    worst = row["worst"]
    assert len(worst) == 20 and worst == sorted(worst, key=lambda one: one["overlap"])
    gone = {f"d{number}" for number in range(40, 50)}
    assert all(gone.intersection(one["only_first"]) for one in worst)


def test_the_gate_prints_a_table_and_the_address_of_the_report(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build(run, corpus(tmp_path, range(50)))["snapshot_id"]
    where = ("--store", str(tmp_path / "store"))
    asked = (("snapshots", "gate", first), ("gate", "show"), ("replay", "--against", first, first))
    for words in asked:
        with pytest.raises(SystemExit) as ended:
            main([*words, *where])
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"default/gate/reports/{first}-2.json" in shown
    assert "golden" in shown and "overlap@10" in shown
    assert "max_recommend_loss" in shown


@pytest.mark.service
@needs_redis
async def test_later_interactions_are_read_from_redis(
    run: Run, tmp_path: Path, redis_url: str
) -> None:
    path = corpus(tmp_path, range(40))
    events = tmp_path / "events.csv"
    rows = [
        f"u{user},d{(user + day) % 40},{day * 86_400}" for user in range(30) for day in (1, 2, 3)
    ]
    events.write_text("\n".join(["user,item,time", *rows]), "utf-8")
    learning = ("--interactions", str(events), "--validate-on", "last-n:1")
    await asyncio.to_thread(build, run, path, *learning)
    # It learned from the same: only what came later is looked at.
    again = ("--no-promote", *learning)
    newer = (await asyncio.to_thread(build, run, path, *again))["snapshot_id"]
    gate = ("snapshots", "gate", newer, "--redis", redis_url)
    store = Store(tmp_path / "store")
    logs = ChangeLogs(store, redis_url, who="test")
    try:
        await logs.log("default").state()
        before = _by_name(await asyncio.to_thread(run, *gate))
        assert before["recommend"]["message"].startswith("no interactions after its training")
        states = logs.log("default").user_states()
        bought = [
            Interaction(item_id=f"d{(user + 4) % 40}", user_id=f"u{user}") for user in range(30)
        ]
        await states.record("default", bought)
        after = _by_name(await asyncio.to_thread(run, *gate))
        assert after["recommend"]["outcome"] == "passed"
        # A file of the same says the same.
        late = tmp_path / "late.csv"
        rows = [f"u{user},d{(user + 4) % 40},{9 * 86_400}" for user in range(30)]
        late.write_text("\n".join(["user,item,time", *rows]), "utf-8")
        of_file = ("snapshots", "gate", newer, "--interactions", str(late))
        found = _by_name(await asyncio.to_thread(run, *of_file))
        assert found["recommend"]["message"] == after["recommend"]["message"]
    finally:
        await logs.close()


def _by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in report["checks"]}
