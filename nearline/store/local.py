"""A store in a local folder."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from nearline.errors import AlreadyExists, NotFound
from nearline.store.durable import (
    check_digest,
    sha256_of,
    store_errors,
    sync_folder,
    write_durably,
)
from nearline.store.files import Digest


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """The files of a store in a folder; see `StoreFiles`.

    Args:
        folder: The folder; it need not exist before the first write.
    """

    folder: Path

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.folder)

    def names(self, path: str, after: str = "") -> list[str]:
        """Lists a folder."""
        place = self.folder / path
        with store_errors(place):
            if not place.is_dir():
                return []
            return sorted(name for name in os.listdir(place) if not after or name > after)

    def holds(self, path: str) -> bool:
        """Returns whether the file exists."""
        return (self.folder / path).is_file()

    def read(self, path: str) -> bytes:
        """Reads a file."""
        place = self.folder / path
        with store_errors(place):
            try:
                return place.read_bytes()
            except FileNotFoundError as error:
                raise NotFound(f"{place} does not exist; check --store") from error

    def digest(self, path: str) -> Digest:
        """Hashes a file."""
        place = self.folder / path
        with store_errors(place):
            try:
                return Digest(place.stat().st_size, sha256_of(place))
            except FileNotFoundError as error:
                raise NotFound(f"{place} does not exist; check --store") from error

    def create(self, path: str, data: bytes) -> None:
        """Creates a file."""
        target = self.folder / path
        with store_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
            write_durably(temporary, data)
            try:
                # A hard link fails if the name exists; a rename would replace the file.
                os.link(temporary, target)
            except FileExistsError as error:
                raise AlreadyExists(f"{target} exists; read the store again") from error
            finally:
                temporary.unlink()
            sync_folder(target.parent)

    def publish(self, written: Path, path: str, last: str) -> None:
        """Forces a folder to disk and renames it: all its files appear at once."""
        target = self.folder / path
        with store_errors(target):
            for inner in sorted(written.rglob("*"), reverse=True):
                _sync(inner)
            sync_folder(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            written.rename(target)
            sync_folder(target.parent)

    def fetch(self, path: str, wanted: Digest) -> None:
        """Verifies a file: first the size, which costs nothing, then the hash."""
        place = self.folder / path
        with store_errors(place):
            size = place.stat().st_size if place.is_file() else None
            found = None if size is None else Digest(size, "")
            if size == wanted.bytes:
                found = Digest(size, sha256_of(place))
        check_digest(place, found, wanted)

    def remove(self, path: str, first: str) -> None:
        """Removes a folder."""
        place = self.folder / path
        with store_errors(place):
            (place / first).unlink(missing_ok=True)
            if place.is_dir():
                sync_folder(place)
                shutil.rmtree(place)

    def remove_file(self, path: str) -> None:
        """Removes a file."""
        place = self.folder / path
        with store_errors(place):
            if place.is_file():
                place.unlink(missing_ok=True)
                sync_folder(place.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
