"""`nearline snapshots` names what is missing, and lists proposals."""

from __future__ import annotations

import json
from pathlib import Path

from nearline.store.snapshot import Store
from retrieval.snapshots.proposals import propose
from tests.nearline_cli.commands.releases.test_gate import Run, build, corpus, run  # noqa: F401
from tests.nearline_cli.conftest import Run as Command


def test_proposals_of_a_store_without_collections_are_refused_with_the_remedy(
    nearline: Command, tmp_path: Path
) -> None:
    done = nearline("snapshots", "proposals", "--store", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "has no collection; name another one (--store" in " ".join(done.stderr.split())


def test_proposals_are_listed_with_what_became_of_them(
    run: Run,  # noqa: F811
    nearline: Command,
    tmp_path: Path,
) -> None:
    build(run, corpus(tmp_path, range(50)))
    new = build(run, corpus(tmp_path, range(51)), "--no-promote")["snapshot_id"]
    store = Store(tmp_path / "store")
    words = ("snapshots", "proposals", "--store", str(tmp_path / "store"))
    assert "proposes no snapshot" in nearline(*words).stderr
    propose(store, "default", new, "drift of score", store.alias_in_force("default"))
    shown = nearline(*words)
    assert new in shown.stdout and "open" in shown.stdout
    (record,) = map(json.loads, nearline(*words, "--json").stdout.splitlines())
    assert (record["snapshot_id"], record["reason"]) == (new, "drift of score")
