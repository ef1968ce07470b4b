"""Tests of exports to Milvus, and of pruning them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nearline.store.snapshot import Store
from retrieval.milvus.layout import collection_name
from tests.nearline_cli.conftest import Run
from tests.retrieval.small_snapshots import documents_of, write_snapshot

pytestmark = pytest.mark.service


def snapshot(root: Path) -> str:
    """Writes and publishes a snapshot; gives its id."""
    return write_snapshot(root, documents_of(np.eye(8, dtype=np.float32)))


@pytest.mark.milvus
def test_a_snapshot_is_exported_once_and_pruned_with_its_snapshot(
    tmp_path: Path, nearline: Run, milvus_uri: str
) -> None:
    root = tmp_path / "milvus_store"
    first = snapshot(root)
    there = ("--store", str(root), "--milvus-uri", milvus_uri)
    done = nearline("snapshots", "export", first, *there, "--index", "FLAT")
    assert done.returncode == 0, done.stderr
    name = collection_name("default", first)
    assert f"{first}: 8 documents, 8 chunks in {name}, index FLAT" in done.stdout
    assert "write: 8 chunks in" in done.stderr
    again = nearline("snapshots", "export", "current", *there, "--index", "FLAT")
    assert again.returncode == 0, again.stderr
    assert "already" in again.stdout and "use --again to write it again" in again.stdout
    second = snapshot(root)
    anew = nearline("snapshots", "export", first, *there, "--again", "--json")
    assert again.returncode == 0, anew.stderr
    record = json.loads(anew.stdout)
    assert (record["written"], record["index"], record["chunks"]) == (True, "HNSW", 8)
    assert (record["snapshot"], record["milvus_collection"]) == (first, name)

    def pruned(*words: str) -> list[tuple[object, ...]]:
        asked = nearline("snapshots", "prune", "--keep", "0", "--young", "--json", *there, *words)
        assert asked.returncode == 0 or "add --yes to do it" in asked.stderr, asked.stderr
        rows = [json.loads(line) for line in asked.stdout.splitlines()]
        return [(r.get("snapshot"), r.get("milvus_collection"), r["removed"]) for r in rows]

    # A rollback would go back to it.
    assert pruned("--yes") == [(second, None, False), (first, None, False)]
    Store(root).remove_snapshot("default", first)
    assert pruned() == [(second, None, False)]
    assert pruned("--yes") == [(second, None, False), (None, name, True)]
    assert pruned("--yes") == [(second, None, False)]


def test_a_milvus_must_be_named_and_reachable(tmp_path: Path, nearline: Run) -> None:
    first = snapshot(tmp_path / "store")
    asked = ("snapshots", "export", first, "--store", str(tmp_path / "store"))
    done = nearline(*asked)
    assert done.returncode == 2
    assert "--to milvus needs --milvus-uri" in done.stderr
    done = nearline(*asked, "--milvus-uri", "127.0.0.1:19530")
    assert done.returncode == 2
    assert "use http://HOST:PORT" in done.stderr


@pytest.mark.milvus
def test_the_error_names_an_unreachable_milvus(tmp_path: Path, nearline: Run) -> None:
    first = snapshot(tmp_path / "store")
    there = ("--store", str(tmp_path / "store"), "--milvus-uri", "http://127.0.0.1:1")
    for words in (("export", first), ("prune", "--yes")):
        done = nearline("snapshots", *words, *there)
        assert done.returncode == 1
        assert "Milvus at http://127.0.0.1:1 does not answer" in done.stderr
        assert "correct --milvus-uri" in done.stderr
