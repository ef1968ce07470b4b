"""Hostile files: each costs its reader a second at most, and a build only itself."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from index_builder.documents.bad_rows import BadRows, DamagedFile
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from index_builder.readers.npy import read_matrix
from index_builder.readers.sandbox import SandboxReader
from nearline.errors import InvalidRequest
from nearline.items.documents import clean_document
from tests.live.hostile.files import File, hostile_files, matrices
from tests.live.hostile.pace import MOST_S, TRIES, in_time

pytestmark = pytest.mark.service
# Of files that nothing but a limit ends, and of all others on a busy machine.
SHORT_S, LONG_S = 2.0, 60.0


def read(reader: SandboxReader, path: Path, name: str) -> tuple[str, float]:
    """Returns why a file, or a row of it, is refused, and the seconds that it took."""
    bad: list[object] = []
    start = time.perf_counter()
    try:
        rows = reader.read(path, name, name, BadRows(allowed=1 << 30, on_bad_row=bad.append))
        for row in rows:
            try:
                clean_document(row.item)
            except InvalidRequest as error:
                bad.append(error.message)
    except (DamagedFile, InvalidRequest) as error:
        bad.append(error.message)
    return " ".join(map(str, bad[:3])), time.perf_counter() - start


def problem_of(reader: SandboxReader, file: File, path: Path) -> str:
    """Returns what is wrong about how a file is read; empty if nothing is."""
    file.write(path)
    for _ in range(TRIES):
        said, spent_s = read(reader, path, file.name)
        quick = in_time(spent_s)
        if quick:
            break
    path.unlink()
    if not quick:
        return f"{file.name} took {spent_s:.2f} s"
    if file.says not in said or (said and not file.says):
        return f"{file.name}: {said[:200]!r} does not say {file.says!r}"
    return ""


def test_each_hostile_file_is_read_or_refused_within_a_second(tmp_path: Path) -> None:
    reader = SandboxReader(timeout_s=LONG_S)
    try:
        good = tmp_path / "good.md"
        good.write_text("# Good")
        assert read(reader, good, "good.md")[0] == ""
        files = [one for one in hostile_files() if not one.endless]
        wrong = [problem_of(reader, one, tmp_path / one.name) for one in files]
        assert not list(filter(None, wrong)), "\n".join(filter(None, wrong))
        assert read(reader, good, "good.md")[0] == ""
    finally:
        reader.close()


def test_a_file_that_is_read_for_ever_is_ended_by_the_limit_of_time(tmp_path: Path) -> None:
    reader = SandboxReader(timeout_s=SHORT_S)
    try:
        (endless,) = (one for one in hostile_files() if one.endless)
        endless.write(tmp_path / endless.name)
        said, spent_s = read(reader, tmp_path / endless.name, endless.name)
        assert endless.says in said and in_time(spent_s, SHORT_S + MOST_S)
    finally:
        reader.close()


@pytest.mark.parametrize("name", matrices())
def test_a_hostile_matrix_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npy"
    path.write_bytes(matrices()[name])
    start = time.perf_counter()
    with pytest.raises(InvalidRequest) as caught:
        list(read_matrix(path, "a.npy"))
    assert time.perf_counter() - start < MOST_S
    assert caught.value.field == "corpus" and len(caught.value.message) < 400
    assert not (tmp_path / "pwned").exists()


def test_what_is_no_file_is_passed_over_or_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pdf").mkdir()
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    (tmp_path / "above").symlink_to(tmp_path)
    (tmp_path / "gone.md").symlink_to(tmp_path / "nobody.md")
    os.mkfifo(tmp_path / "pipe.md")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.md"))
    (tmp_path / "good.md").write_text("# Good")
    try:
        bad_rows = BadRows()
        items = [row.item.id for row in Corpus([tmp_path], DocumentColumns()).rows(bad_rows)]
        assert items == ["good.md"]
        assert [Path(one.location.source).name for one in bad_rows.sample] == ["gone.md", "loop.md"]
        for name in ("loop.md", "pipe.md", "socket.md", "gone.md", "folder.pdf"):
            with pytest.raises(InvalidRequest):
                Corpus([tmp_path / name], DocumentColumns())
    finally:
        listener.close()
