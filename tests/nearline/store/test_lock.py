"""The lock of a folder has one holder at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.errors import Conflict, StoreError
from nearline.store.lock import lock_folder


def test_a_second_holder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with lock_folder(folder, "busy; wait"):
        with pytest.raises(Conflict, match=r"^busy; wait$"), lock_folder(folder, "busy; wait"):
            pass
        # The refused attempt has not released the lock.
        with pytest.raises(Conflict), lock_folder(folder, "busy; wait"):
            pass
        with lock_folder(tmp_path / "a", "busy; wait"):
            pass
    with lock_folder(folder, "busy; wait"):
        pass


def test_an_error_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path, "busy"):
        raise ZeroDivisionError
    with lock_folder(tmp_path, "busy"):
        pass


def test_a_folder_that_cannot_be_created_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError), lock_folder(tmp_path / "file" / "folder", "busy"):
        pass
