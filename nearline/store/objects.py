"""A store in S3, Google Cloud Storage or Azure, with a cache in a local folder.

Objects are created whole and never changed. The manifest of a snapshot is uploaded last, so that
interrupted uploads are never listed. Each reader downloads each file that it serves only once, and
maps it from the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore

from nearline.errors import AlreadyExists, NotFound, StoreError
from nearline.store.durable import check_digest, sha256_of, store_errors
from nearline.store.files import Digest

KEPT = 3  # Cached snapshots per collection: current, previous, canary.
_BLOCK_BYTES = 16 << 20  # Per request; S3 allows 10,000 parts per file: 156 GiB.
_AT_ONCE = 4
_SNAPSHOT_PARTS = 3  # <collection>/snapshots/<id>: cached and removed as a unit.
_ERROR_CHARACTERS = 300
# Address that the library queries when the environment has no credentials: instance metadata.
_INSTANCE_ROLE = "/latest/api/token"
# Part of the library's errors about TLS.
_BAD_CERTIFICATE = "InvalidCertificate"


class ObjectFiles:
    """The files of a store in an object store; see `StoreFiles`.

    Args:
        store: The bucket, opened at the prefix.
        url: The value of --store.
        folder: The cache; processes on one machine may share it.
    """

    def __init__(self, store: ObjectStore, url: str, folder: Path) -> None:
        self._store = store
        self._url = url
        self._folder = folder

    @property
    def url(self) -> str:
        """The URL."""
        return self._url

    @property
    def folder(self) -> Path:
        """The cache."""
        return self._folder

    def names(self, path: str, after: str = "") -> list[str]:
        """Lists names under a prefix; with `after`, only later names are requested."""
        prefix = f"{path}/" if path else ""
        with self._errors(f"list {path or 'the bucket'}"):
            if after:
                batches = obstore.list(self._store, path or None, offset=f"{prefix}{after}")
                found = [entry["path"] for batch in batches for entry in batch]
            else:
                listed = obstore.list_with_delimiter(self._store, path or None)
                found = [*listed["common_prefixes"], *(o["path"] for o in listed["objects"])]
        names = {one.removeprefix(prefix).partition("/")[0] for one in found}
        return sorted(name for name in names if name > after)

    def holds(self, path: str) -> bool:
        """Returns whether the object exists."""
        try:
            self.size(path)
        except NotFound:
            return False
        return True

    def read(self, path: str) -> bytes:
        """Reads an object whole."""
        with self._errors(f"read {path}"):
            return obstore.get(self._store, path).bytes().to_bytes()

    def size(self, path: str) -> int:
        """Returns the size of an object."""
        with self._errors(f"read {path}"):
            return obstore.head(self._store, path)["size"]

    def blocks(self, path: str, size: int) -> Iterator[bytes]:
        """Yields an object in blocks."""
        yield from self._blocks(path, 0, size)

    def digest(self, path: str) -> Digest:
        """Hashes an object block by block without storing it."""
        size = self.size(path)
        digest = hashlib.sha256()
        for block in self._blocks(path, 0, size):
            digest.update(block)
        return Digest(size, digest.hexdigest())

    def create(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Creates an object.

        The library sends a request again if its answer was lost or was an error; the first may
        have been carried out all the same. An object with exactly this content is therefore ours:
        contents that must have one owner contain a time or a random number.
        """
        try:
            with self._errors(f"create {path}"):
                obstore.put(self._store, path, data, mode="create")
        except AlreadyExists:
            if self.read(path) != data:
                raise

    def publish(self, source: Path, path: str, last: str) -> None:
        """Uploads a folder, file `last` after all others, and moves it into the cache."""
        with store_errors(source):
            files = sorted(p for p in source.rglob("*") if p.is_file() and p != source / last)
        for file in (*files, source / last):
            name = f"{path}/{file.relative_to(source).as_posix()}"
            with self._errors(f"upload {name}"):
                obstore.put(
                    self._store, name, file, chunk_size=_BLOCK_BYTES, max_concurrency=_AT_ONCE
                )
        target = self._folder / path
        with store_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        _trim(target.parent)

    def fetch(self, path: str, expected: Digest) -> None:
        """Downloads an object into the cache; a damaged cached file is replaced."""
        target = self._folder / path
        folder = self._folder.joinpath(*Path(path).parts[:_SNAPSHOT_PARTS])
        with store_errors(target):
            new = not folder.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            os.utime(folder)  # Marks the last use.
            if _digest(target, expected.bytes) == expected:
                return
            with _locked(folder.parent):
                # Another process may have downloaded it meanwhile.
                if _digest(target, expected.bytes) != expected:
                    self._download(path, target, expected)
        if new:
            _trim(folder.parent)

    def remove(self, path: str, first: str) -> None:
        """Removes all objects under a prefix."""
        shutil.rmtree(self._folder / path, ignore_errors=True)
        with self._errors(f"remove {path}"):
            batches = obstore.list(self._store, path)
            names = [entry["path"] for batch in batches for entry in batch]
            if f"{path}/{first}" in names:
                obstore.delete(self._store, f"{path}/{first}")
                names.remove(f"{path}/{first}")
            if names:
                obstore.delete(self._store, names)

    def remove_file(self, path: str) -> None:
        """Removes an object."""
        # Some stores report a missing object as an error.
        with contextlib.suppress(NotFound), self._errors(f"remove {path}"):
            obstore.delete(self._store, path)

    def _blocks(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes start to end, prefetching a few blocks; fewer only if the object ends."""

        def read(at: int) -> bytes:
            length = min(_BLOCK_BYTES, end - at)
            with self._errors(f"read {path}"):
                return bytes(obstore.get_range(self._store, path, start=at, length=length))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            step = _BLOCK_BYTES * _AT_ONCE
            for group in range(start, end, step):
                yield from pool.map(read, range(group, min(end, group + step), _BLOCK_BYTES))

    def _download(self, path: str, target: Path, expected: Digest) -> None:
        try:
            size = self.size(path)
        except NotFound:
            check_digest(f"{self._url}/{path}", None, expected)
            raise
        check_digest(f"{self._url}/{path}", Digest(size, expected.sha256), expected)
        part = target.parent / f".{target.name}.part"
        resumed = part.exists() and 0 < part.stat().st_size <= size
        if part.exists() and not resumed:
            part.unlink()
        with part.open("ab") as stream:
            for block in self._blocks(path, stream.tell(), size):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        found = _digest(part, size)
        if found != expected:
            part.unlink()
            if resumed:  # A power failure may have damaged the first part: start again.
                self._download(path, target, expected)
                return
            check_digest(f"{self._url}/{path}", found, expected)
        part.replace(target)

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Converts a library error inside the block to a Nearline error that names the remedy."""
        problem = f"store {self._url}: cannot {action}"
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"{problem}: the object does not exist; check --store") from error
        except AlreadyExistsError as error:
            raise AlreadyExists(f"{problem}: the object exists; read the store again") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreError(
                f"{problem}: access is denied; check the credentials in the environment (AWS_…, "
                "GOOGLE_…, AZURE_…) and their permissions on the bucket"
            ) from error
        except Exception as error:
            if _BAD_CERTIFICATE in str(error):
                raise StoreError(
                    f"{problem}: the certificate of the endpoint is of another host, has expired, "
                    "or is signed by an unknown authority; for one of your own, set SSL_CERT_FILE "
                    "to the file of its certificate"
                ) from error
            details = " ".join(str(error).split())[:_ERROR_CHARACTERS]
            if _INSTANCE_ROLE in details:
                raise StoreError(
                    f"{problem}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                    "or run on an instance with a role"
                ) from error
            raise StoreError(
                f"{problem}: {details}; check that the bucket exists, the endpoint, the region and "
                "the network"
            ) from error


@contextlib.contextmanager
def _locked(snapshots: Path) -> Iterator[None]:
    """Locks the cache of a collection for one process at a time."""
    descriptor = os.open(snapshots / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest(file: Path, size: int) -> Digest | None:
    if not file.is_file() or file.stat().st_size != size:
        return None
    return Digest(size, sha256_of(file))


def _trim(snapshots: Path) -> None:
    """Removes all but the most recently used snapshots; mapped files stay readable."""
    with store_errors(snapshots), _locked(snapshots):
        used = [p for p in snapshots.iterdir() if p.is_dir() and not p.name.startswith(".")]
        used.sort(key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
        for folder in used[KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)
