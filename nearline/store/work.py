"""Finished work of a build in a store, so that the build can go on on another machine.

Layout:
    <store>/<collection>/unfinished/<key>/begun.json
    <store>/<collection>/unfinished/<key>/pieces/<time>-<first>-<last>-<bytes>-<sha256>
Objects are created and never changed. The name of a piece says when it was created, which rows it
is about, and what it must contain.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nearline.errors import AlreadyExists, NotFound
from nearline.store.files import Digest, StoreFiles

WORK = "unfinished"
# Larger pieces are not read: nobody wrote them.
MAX_PIECE_BYTES = 64 << 20
_BEGUN = "begun.json"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"([0-9]{8}T[0-9]{6}Z)-([0-9]{1,12})-([0-9]{1,12})-([0-9]{1,9})-([0-9a-f]{64})")
_KEY = re.compile(r"[0-9a-f]{16}")


class StoredPiece(NamedTuple):
    """A piece of work. first, last: The first and the last of its rows. time: Of its creation."""

    name: str
    time: datetime
    first: int
    last: int
    digest: Digest


class StoredWork(NamedTuple):
    """The work of one build. time: When something was added last. path: Its folder in the store."""

    path: str
    bytes: int
    time: datetime


class BuildWork:
    """The work of one build in a store. Every method blocks, and may raise StoreError.

    Several machines may do the same work at once: each creates its own pieces, and reads those of
    the others.

    Args:
        files: Files of the store.
        collection: Collection name.
        key: Key of the work: 16 hexadecimal digits.
    """

    def __init__(self, files: StoreFiles, collection: str, key: str) -> None:
        self._files = files
        self._path = f"{collection}/{WORK}/{key}"

    def begin(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Records facts that all runs of the build must share, unless an earlier run did.

        Returns: The facts that count: those of the first run.
        """
        text = json.dumps({**facts, "created_us": time.time_ns() // 1_000}).encode()
        path = f"{self._path}/{_BEGUN}"
        try:
            self._files.create(path, text)
        except AlreadyExists:
            text = self._files.read(path)
        known: dict[str, Any] = json.loads(text)
        return known

    def pieces(self) -> list[StoredPiece]:
        """Lists the pieces, oldest first."""
        return sorted(_pieces(self._files, self._path), key=lambda one: one.name)

    def add(self, data: bytes, first: int, last: int) -> None:
        """Creates a piece.

        Args:
            data: Its content, at most MAX_PIECE_BYTES.
            first: The first of its rows. last: The last of them.
        """
        now = datetime.now(UTC).strftime(_TIME)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{now}-{first}-{last}-{len(data)}-{digest}"
        self._files.create(f"{self._path}/pieces/{name}", data)

    def read(self, piece: StoredPiece) -> bytes | None:
        """Reads a piece. If it is missing or damaged, removes it and returns None."""
        path = f"{self._path}/pieces/{piece.name}"
        with contextlib.suppress(NotFound):
            size = self._files.size(path)
            if size == piece.digest.bytes <= MAX_PIECE_BYTES:
                data = self._files.read(path)
                if hashlib.sha256(data).hexdigest() == piece.digest.sha256:
                    return data
        self.discard(piece)
        return None

    def discard(self, piece: StoredPiece) -> None:
        """Removes a piece."""
        self._files.remove_file(f"{self._path}/pieces/{piece.name}")

    def remove(self) -> None:
        """Removes all work of the build."""
        remove_work(self._files, self._path)


def stored_work(files: StoreFiles, collection: str) -> Iterator[StoredWork]:
    """Yields the work of unfinished builds of a collection."""
    for key in files.names(f"{collection}/{WORK}"):
        if not _KEY.fullmatch(key):
            continue
        path = f"{collection}/{WORK}/{key}"
        pieces = list(_pieces(files, path))
        times = [one.time for one in pieces] or [_begun_at(files, path)]
        yield StoredWork(path, sum(one.digest.bytes for one in pieces), max(times))


def remove_work(files: StoreFiles, path: str) -> None:
    """Removes the work of a build. path: Its folder in the store."""
    files.remove(path, _BEGUN)


def _pieces(files: StoreFiles, path: str) -> Iterator[StoredPiece]:
    for name in files.names(f"{path}/pieces"):
        if match := _NAME.fullmatch(name):
            created = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            digest = Digest(int(match[4]), match[5])
            yield StoredPiece(name, created, int(match[2]), int(match[3]), digest)


def _begun_at(files: StoreFiles, path: str) -> datetime:
    """Returns when a build without pieces began; long ago if nothing readable says so."""
    try:
        begun = json.loads(files.read(f"{path}/{_BEGUN}"))
        return datetime.fromtimestamp(begun["created_us"] / 1e6, UTC)
    except (NotFound, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return datetime.fromtimestamp(0, UTC)
