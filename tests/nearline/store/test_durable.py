"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nearline.errors import StoreError
from nearline.store.durable import store_errors, write_durably


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "note.json"
    write_durably(file, b"whole")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    for path in (file, tmp_path / "new.json"):
        with pytest.raises(OSError, match="No space left"):
            write_durably(path, b"another")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"note.json": b"whole"}


def test_a_file_is_on_disk_whole_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def record(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, (tmp_path / "note.json").exists()))

    monkeypatch.setattr(os, "fsync", record)
    write_durably(tmp_path / "note.json", b"whole")
    assert synced == [(5, False)]


def test_a_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    write_durably(tmp_path / "private", b"", mode=0o600)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left"), "No space left; free some space or choose"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "raise the quota or choose another --store"),
        (PermissionError(errno.EACCES, "Denied"), "make it writable for this user or choose"),
        (PermissionError(errno.EPERM, "Denied"), "make it writable for this user or choose"),
        (OSError(errno.EROFS, "Read-only"), "the file system is read-only; choose another"),
        (OSError(errno.EIO, "I/O error"), "I/O error; check the path and the disk"),
        (
            OSError("241863 requested and 8160 written"),
            "only in part .*; free some space or choose",
        ),
        (OSError("an error without a number"), "without a number; check the path and the disk"),
    ],
)
def test_an_error_of_the_disk_names_the_path_and_the_remedy(error: OSError, words: str) -> None:
    with pytest.raises(StoreError, match=f"^store /some/path: .*{words}") as caught:
        with store_errors(Path("/some/path")):
            raise error
    assert caught.value.__cause__ is error


def test_other_errors_are_not_those_of_the_store() -> None:
    with pytest.raises(ZeroDivisionError), store_errors(Path("/some/path")):
        raise ZeroDivisionError
