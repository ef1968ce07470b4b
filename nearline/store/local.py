"""A store in a local folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nearline.errors import AlreadyExists, NotFound
from nearline.store.durable import (
    check_digest,
    remove_folder,
    sha256_of,
    store_errors,
    sync_folder,
    write_durably,
)
from nearline.store.files import Digest

_BLOCK_BYTES = 1 << 20


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
        target = self.folder / path
        with store_errors(target):
            if not target.is_dir():
                return []
            return sorted(name for name in os.listdir(target) if not after or name > after)

    def holds(self, path: str) -> bool:
        """Returns whether the file exists."""
        return (self.folder / path).is_file()

    def read(self, path: str) -> bytes:
        """Reads a file."""
        target = self.folder / path
        with store_errors(target):
            try:
                return target.read_bytes()
            except FileNotFoundError as error:
                raise NotFound(f"{target} does not exist; check --store") from error

    def size(self, path: str) -> int:
        """Returns the size of a file."""
        target = self.folder / path
        with store_errors(target):
            try:
                return target.stat().st_size
            except FileNotFoundError as error:
                raise NotFound(f"{target} does not exist; check --store") from error

    def blocks(self, path: str, size: int) -> Iterator[bytes]:
        """Yields a file in blocks."""
        target = self.folder / path
        with store_errors(target):
            try:
                with target.open("rb") as stream:
                    while data := stream.read(min(_BLOCK_BYTES, size)):
                        size -= len(data)
                        yield data
            except FileNotFoundError as error:
                raise NotFound(f"{target} does not exist; check --store") from error

    def digest(self, path: str) -> Digest:
        """Hashes a file."""
        target = self.folder / path
        with store_errors(target):
            try:
                return Digest(target.stat().st_size, sha256_of(target))
            except FileNotFoundError as error:
                raise NotFound(f"{target} does not exist; check --store") from error

    def create(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Creates a file."""
        target = self.folder / path
        with store_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            if private:
                # Also a folder that an earlier version has made.
                target.parent.chmod(0o700)
            temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
            write_durably(temporary, data, mode=0o600 if private else 0o666)
            try:
                # A hard link fails if the name exists; a rename would replace the file.
                os.link(temporary, target)
            except FileExistsError as error:
                # Over NFS, a link may be there whose answer was lost; see open(2).
                if temporary.stat().st_nlink < 2:
                    raise AlreadyExists(f"{target} exists; read the store again") from error
            finally:
                temporary.unlink()
            sync_folder(target.parent)

    def publish(self, source: Path, path: str, last: str) -> None:
        """Forces a folder to disk and renames it: all its files appear at once."""
        target = self.folder / path
        with store_errors(target):
            for inner in sorted(source.rglob("*"), reverse=True):
                sync_folder(inner)
            sync_folder(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            sync_folder(target.parent)

    def fetch(self, path: str, expected: Digest) -> None:
        """Verifies a file: first the size, which costs nothing, then the hash."""
        target = self.folder / path
        with store_errors(target):
            size = target.stat().st_size if target.is_file() else None
            found = None if size is None else Digest(size, "")
            if size == expected.bytes:
                found = Digest(size, sha256_of(target))
        check_digest(target, found, expected)

    def remove(self, path: str, first: str) -> None:
        """Removes a folder."""
        target = self.folder / path
        with store_errors(target):
            (target / first).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                sync_folder(target)
            remove_folder(target)

    def remove_file(self, path: str) -> None:
        """Removes a file."""
        target = self.folder / path
        with store_errors(target):
            if target.is_file():
                target.unlink(missing_ok=True)
                sync_folder(target.parent)
