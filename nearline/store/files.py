"""The interface between a snapshot store and its storage backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol


class Digest(NamedTuple):
    """Size and SHA-256 (lower-case hex) of a file."""

    bytes: int
    sha256: str


class StoreFiles(Protocol):
    """Files under a root, by relative path with "/" as the separator.

    Every method may raise StoreError (no permission, no space, no answer); it names the remedy.
    """

    @property
    def url(self) -> str:
        """The value of --store that opens it: a folder or a URL."""

    @property
    def folder(self) -> Path:
        """The root if it is local, else the local cache of the object store."""

    def names(self, path: str, after: str = "") -> list[str]:
        """Lists the files and folders directly in a folder, alphabetically.

        Args:
            path: The folder; "" is the root. A missing folder is empty.
            after: Return only names that sort after this one; saves requests to an object store.
        """

    def holds(self, path: str) -> bool:
        """Returns whether the file exists."""

    def read(self, path: str) -> bytes:
        """Reads a small file whole. Raises: NotFound."""

    def size(self, path: str) -> int:
        """Returns the number of bytes of a file. Raises: NotFound."""

    def blocks(self, path: str, size: int) -> Iterator[bytes]:
        """Yields the first `size` bytes of a file in blocks; fewer if it ends. Raises: NotFound."""

    def digest(self, path: str) -> Digest:
        """Reads a file from the store, not from a cache, and hashes it. Raises: NotFound."""

    def create(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Creates a file, whole and durable or not at all.

        An object store may also accept a file that exists with the same content.

        Args:
            private: Whether only this user may read the file, and list its folder. In an object
                store, the permissions of the bucket decide that.
        Raises: AlreadyExists.
        """

    def publish(self, source: Path, path: str, last: str) -> None:
        """Publishes a finished local folder in the store and in `folder`.

        Args:
            source: The folder, in the same file system as `folder`; it is moved.
            path: Path of the folder in the store; must not exist yet.
            last: The file in the folder that makes the others visible; uploaded last.
        """

    def fetch(self, path: str, expected: Digest) -> None:
        """Provides a verified file under `folder`; an object store downloads it if it is missing.

        Raises: SnapshotCorrupt: the file is missing, or size or SHA-256 differs; names both.
        """

    def remove(self, path: str, first: str) -> None:
        """Removes a folder, if it exists, from the store and from `folder`.

        Args:
            path: The folder.
            first: The file in the folder that makes the others visible; removed first.
        """

    def remove_file(self, path: str) -> None:
        """Removes a file from the store if it exists."""
