"""The seam between a snapshot store and what holds its files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol


class Digest(NamedTuple):
    """Size and SHA-256 (lower-case hex) of a file."""

    bytes: int
    sha256: str


class StoreFiles(Protocol):
    """Files by path below a root: relative, with "/" between the parts.

    Every method may raise StoreError: no permission, no space, no answer; it names the remedy.
    """

    @property
    def url(self) -> str:
        """What --store has to say to open it again: a folder, or a URL."""

    @property
    def folder(self) -> Path:
        """The local folder that mirrors the root: itself, or the cache of an object store."""

    def names(self, path: str, after: str = "") -> list[str]:
        """Lists what lies directly in a folder, files and folders, in alphabetical order.

        Args:
            path: The folder; "" is the root. One that is not there is empty.
            after: Only names that sort after this one; an object store lists no others.
        """

    def holds(self, path: str) -> bool:
        """Returns whether there is such a file."""

    def read(self, path: str) -> bytes:
        """Reads a small file whole. Raises: NotFound."""

    def digest(self, path: str) -> Digest:
        """Reads a file from the store, not from a cache, and hashes it. Raises: NotFound."""

    def create(self, path: str, data: bytes) -> None:
        """Makes a file, whole and durable or not at all. Raises: AlreadyExists."""

    def publish(self, written: Path, path: str, last: str) -> None:
        """Gives a finished local folder its place in the store, and in the mirror.

        Args:
            written: The folder, in the file system of `folder`; it is moved.
            path: Where it goes; nothing may be there.
            last: The file below it that makes the others visible.
        """

    def fetch(self, path: str, wanted: Digest) -> None:
        """Makes a file lie below `folder`, as wanted; an object store downloads what is not there.

        Raises: SnapshotCorrupt: it is missing, or size or SHA-256 differs; names both.
        """

    def remove(self, path: str, first: str) -> None:
        """Removes a folder from the store and from the mirror; what is not there is gone already.

        Args:
            path: The folder.
            first: The file below it whose absence makes the others invisible.
        """

    def remove_file(self, path: str) -> None:
        """Removes a file from the store; one that is not there is gone already."""
