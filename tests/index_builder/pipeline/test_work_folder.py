"""Only a build with the same inputs resumes work; what none ever resumes does not stay for ever."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from index_builder.documents.records import SourceCount
from index_builder.options.build_options import BuildOptions, ChunkOptions, IndexOptions
from index_builder.pipeline.work_folder import remove_stale_work, work_folder, work_key
from nearline.store.lock import lock_folder

DAY_S = 86_400.0


def _work(options: BuildOptions, key: str, age_s: float) -> Path:
    folder = work_folder(options, key)
    folder.mkdir(parents=True)
    (folder / "vectors.f32").write_bytes(b"1234")
    for path in (folder / "vectors.f32", folder):
        os.utime(path, (time.time() - age_s,) * 2)
    return folder


def _key(
    uri: str = "corpus.jsonl",
    sha256: str = "00",
    column: str = "id",
    fingerprint: str = "m",
    **changed: Any,
) -> str:
    options = BuildOptions(store="store", **changed)
    return work_key(options, [SourceCount(uri=uri, sha256=sha256)], [column], fingerprint)


@pytest.mark.parametrize(
    "changed",
    [
        {"chunks": ChunkOptions(max_tokens=120)},
        {"chunks": ChunkOptions(overlap_sentences=2)},
        {"shards": 2},
        {"max_bad_rows": 1},
        {"title_only": True},
        {"index": IndexOptions(metric="inner_product")},
        {"as_of": datetime(2026, 1, 1, tzinfo=UTC)},
        {"uri": "other.jsonl"},
        {"sha256": "01"},
        {"column": "name"},
        {"fingerprint": "n"},
    ],
    ids=str,
)
def test_a_build_resumes_no_work_of_other_inputs(changed: dict[str, Any]) -> None:
    assert _key(**changed) != _key() == _key(index=IndexOptions(factory="Flat"))


def test_work_is_removed_after_a_week_without_a_write_unless_a_build_holds_it(
    tmp_path: Path,
) -> None:
    options = BuildOptions(store=str(tmp_path / "store"), work_dir=tmp_path / "work")
    remove_stale_work(options)
    old = _work(options, "0" * 16, 7 * DAY_S + 60)
    young = _work(options, "1" * 16, 7 * DAY_S - 60)
    held = _work(options, "2" * 16, 8 * DAY_S)
    # A folder for work may hold something else.
    foreign = _work(options, "photographs", 900 * DAY_S)
    with lock_folder(held, "busy"):
        for path in (held / "lock", held):
            os.utime(path, (time.time() - 8 * DAY_S,) * 2)
        remove_stale_work(options)
        assert not old.exists()
        assert young.exists() and held.exists() and foreign.exists()
    remove_stale_work(options)
    assert not held.exists()
    assert young.exists() and foreign.exists()
