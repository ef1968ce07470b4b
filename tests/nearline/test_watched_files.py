"""Files are read again when they change, and what was read stays where they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nearline.watched_files import WatchedFiles, read_text


def test_contents_follow_the_files_and_survive_their_loss(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    paths = [str(one), str(other)]
    watched = WatchedFiles(paths, lambda: one.read_text() + other.read_text(), "numbers")
    # The files may have changed between the first reading and the first look.
    assert watched.changed() == "12"
    assert watched.changed() is None
    (tmp_path / "next").write_text("3")
    os.replace(tmp_path / "next", other)
    assert watched.changed() == watched.contents == "13"
    one.unlink()
    assert watched.changed() is None
    assert watched.contents == "13"
    one.write_text("4")
    assert watched.changed() == "43"


def test_files_that_cannot_be_read_at_first_are_an_error(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(FileNotFoundError):
        WatchedFiles([str(absent)], absent.read_text, "numbers")


def test_a_damaged_file_is_read_once_until_it_changes_again(tmp_path: Path) -> None:
    file, reads = tmp_path / "file", []
    file.write_text("1")

    def read() -> int:
        reads.append(file.read_text())
        return int(file.read_text())

    watched = WatchedFiles([str(file)], read, "numbers")
    watched.changed()
    file.write_text("damaged")
    for _ in range(3):
        assert watched.changed() is None
    assert reads == ["1", "1", "damaged"] and watched.contents == 1
    file.write_text("22")
    assert watched.changed() == 22


def test_a_file_that_is_gone_or_cannot_be_parsed_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"

    def read() -> str:
        if (text := file.read_text()) == "[[":
            # As of the parser of TOML.
            raise RecursionError
        return text

    file.write_text("1")
    watched = WatchedFiles([str(file)], read, "numbers")
    file.write_text("[[")
    assert watched.changed() is watched.changed() is None
    file.unlink()
    # Callers with unknown keys, who make a service look again, do not fill its log.
    assert watched.changed() is watched.changed() is None
    assert [one.levelname for one in caplog.records].count("ERROR") == 2


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    # As an editor or a full disk leaves it: it would lift all limits, or revoke all keys.
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="it is empty"):
        read_text(tmp_path / "file")
