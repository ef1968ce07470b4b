"""Tests of the index of a folder without its services: what is looked at, hashed and embedded."""

from __future__ import annotations

import asyncio
import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_builder.documents.bad_rows import BadRows
from nearline.errors import InvalidRequest, SettingsError, StoreError
from nearline_cli.compose import folder_index
from nearline_cli.compose.folder_build import FolderCorpus, VectorCache
from nearline_cli.compose.folder_index import FolderIndex, FolderUpdate
from nearline_cli.compose.indexed_files import IndexedFiles, list_states
from tests.index_builder.embedders import HashEmbedder

TEXTS = ["a red chair", "a green lamp", "a blue door"]


@pytest.fixture(autouse=True)
def give_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a cache of this test."""
    monkeypatch.setenv("NEARLINE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "said"), [("gone", "is not a folder"), ("empty", "contains no readable file")]
)
async def test_what_is_no_folder_or_has_no_documents_is_refused_before_anything_starts(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match=said):
        async with FolderIndex(tmp_path / name, as_json=True).served():
            pass
    # A path that was mistyped leaves nothing behind.
    assert name == "empty" or not (tmp_path / "cache").exists()


async def test_a_cache_that_cannot_be_written_or_is_of_another_user_is_refused(
    tmp_path: Path, give_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_cache.write_text("no folder")
    with pytest.raises(StoreError, match="cannot be written: Not a directory; set NEARLINE_CACHE"):
        async with FolderIndex(tmp_path, as_json=True).served():
            pass
    give_cache.unlink()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(StoreError, match="belongs to another user"):
        async with FolderIndex(tmp_path, as_json=True).served():
            pass


def test_a_path_that_leads_nowhere_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (Path("~nobody-of-this-name/documents"), tmp_path / "loop"):
        with pytest.raises(InvalidRequest, match=r"is not a folder .*; name one with your files"):
            FolderIndex(path, as_json=True)
    with pytest.raises(InvalidRequest, match=r"f\\xfclder is not UTF-8; rename it"):
        FolderIndex(Path(os.fsdecode(b"f\xfclder")), as_json=True)


def test_a_user_without_a_home_is_asked_for_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_entry(_: object) -> None:
        raise KeyError

    for name in ("NEARLINE_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    with pytest.raises(SettingsError, match="set NEARLINE_CACHE_DIR to a folder of your own"):
        FolderIndex(tmp_path, as_json=True)


class _Watched(FolderIndex):
    """A watched folder whose updates are only counted; some of them fail."""

    updates = failures = 0

    async def _update(self) -> Any:
        self.updates += 1
        if self.updates <= self.failures:
            raise StoreError("the disk is full")
        return None, FolderUpdate("1 changed", 1, 1, 0.0)


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_watch_waits_neither_for_ever_for_a_file_to_settle_nor_gives_up_after_a_failure(
    failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_WATCH_S", 0.01), ("_SETTLE_S", 0.1), ("_RETRY_S", 0.1)):
        monkeypatch.setattr(folder_index, name, seconds)
    file = tmp_path / "a.md"
    file.write_text("0")
    index, reports = _Watched(tmp_path, as_json=True), list[object]()
    index.failures = failures
    watch = asyncio.create_task(index.watch(reports.append))
    try:
        async with asyncio.timeout(10):
            while len(reports) < 2:
                if not failures:
                    # At every look, it has changed.
                    file.write_text(file.read_text() + "0")
                await asyncio.sleep(0.005)
    finally:
        watch.cancel()
    assert [type(one) for one in reports[: failures + 1]] == [
        *[StoreError] * failures,
        FolderUpdate,
    ]


def test_every_change_of_a_file_that_is_read_changes_the_states(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.md").write_text("old")
    (folder / ".hidden.md").write_text("old")
    (folder / "photo.png").write_bytes(b"old")

    def states() -> dict[str, tuple[int, int, int]]:
        return list_states(folder, [".md"])

    seen = [states()]
    assert list(seen[0]) == [str(folder / "inner" / "a.md")]
    (folder / ".hidden.md").write_text("new")
    (folder / "photo.png").write_bytes(b"newer")
    assert states() == seen[0]
    # Of the same size, with its old time of modification.
    status = (folder / "inner" / "a.md").stat()
    (folder / "inner" / "a.md").write_text("new")
    os.utime(folder / "inner" / "a.md", ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.append(states())
    (folder / "inner").rename(folder / "other")
    seen.append(states())
    (folder / "link.md").symlink_to(folder / "nowhere")
    seen.append(states())
    (folder / "other" / "a.md").unlink()
    seen.append(states())
    assert all(one not in seen[:place] for place, one in enumerate(seen))
    assert list_states(tmp_path / "gone", [".md"]) == {str(tmp_path / "gone"): (-1, 0, 0)}


def test_files_that_an_index_was_built_from_are_kept_and_damage_is_forgotten(
    tmp_path: Path,
) -> None:
    state = (3, 1, 1)
    old = IndexedFiles(
        keeper="k",
        states={"a": state, "b": state, "c": state},
        hashes={"a": "1", "b": "2", "c": "3"},
        left_out=["c:1: broken"],
    )
    old.save(tmp_path)
    assert IndexedFiles.load(tmp_path) == old
    assert old.known_hashes({"a": state, "b": (4, 1, 1), "d": state}) == {"a": "1"}
    now = replace(old, hashes={"a": "1", "b": "4", "d": "5", "e": "6"})
    assert old.describe_changes(now) == "2 new, 1 changed, 1 gone"
    for damage in ("", "[]", '{"states": 3}', '{"states": {}, "more": 1}'):
        (tmp_path / "files.json").write_text(damage)
        assert IndexedFiles.load(tmp_path) == IndexedFiles()


def test_only_files_without_a_known_hash_are_hashed_and_reading_can_be_stopped(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.md").write_text("# A\n\nParcels leave on the day of the order.")
    (tmp_path / "b.md").write_text("# B\n\nGift cards are valid for three years.")
    corpus = FolderCorpus(tmp_path, {str(tmp_path / "a.md"): "known"})
    (tmp_path / "b.md").unlink()
    assert [source.sha256 for source in corpus.sources()] == ["known", ""]
    corpus.stopped = True
    with pytest.raises(Exception, match="stopped"):
        next(corpus.rows(BadRows()))


def test_a_file_whose_name_is_not_utf_8_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nParcels leave on the day of the order.")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("# B\n\nGift cards.")
    corpus, bad_rows = FolderCorpus(tmp_path), BadRows(1)
    assert [source.uri for source in corpus.sources()] == [str(tmp_path / "a.md")]
    assert len(list(corpus.rows(bad_rows))) == 1
    (left_out,) = bad_rows.sample
    assert r"caf\xe9.md" in str(left_out) and "rename it" in str(left_out)


async def test_a_text_is_embedded_once_until_no_build_has_it(tmp_path: Path) -> None:
    file, embedder = tmp_path / "vectors", HashEmbedder()

    async def embed(texts: list[str], fingerprint: str = "hash") -> None:
        with VectorCache.open(embedder, file) as cache:
            found = await cache.embed(texts, expected_fingerprint=fingerprint)
            plain = await HashEmbedder().embed(texts)
            np.testing.assert_array_equal(found.vectors, plain.vectors)
            assert found.tokens.tolist() == plain.tokens.tolist()
            assert found.truncated.tolist() == plain.truncated.tolist()
            assert found.fingerprint == "hash"
            cache.forget_unused()

    await embed(TEXTS[:2])
    await embed([*TEXTS, TEXTS[0]])
    assert embedder.texts == TEXTS
    await embed(TEXTS[:1])
    await embed(TEXTS[:2])
    assert embedder.texts == [*TEXTS, TEXTS[1]]
    await embed(TEXTS[:1], fingerprint="another")
    assert embedder.texts[-1] == TEXTS[0]
    # A damaged file costs the vectors only.
    file.write_bytes(b"no database" * 1000)
    await embed(TEXTS)
    await embed(TEXTS)
    assert embedder.texts[5:8] == TEXTS
