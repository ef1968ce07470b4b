"""Files of interactions to import: from a file, a folder, or a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from index_builder.interactions.reader import ENDINGS
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from index_builder.interactions.reader import ColumnNames
    from nearline.store.files import StoreFiles

_BLOCK_BYTES: Final = 4 << 20
_ID_CHARACTERS: Final = 32


class InteractionFile(NamedTuple):
    """A file to import.

    name: As the user would write it. path: In the bucket, or on this machine. bucket: None on this
    machine.
    """

    name: str
    path: str
    bucket: StoreFiles | None = None

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """Yields the path of the file, or of a copy, for the duration of the block."""
        if self.bucket is None:
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory(prefix="nearline-") as folder:
            copy = Path(folder) / Path(self.path).name
            with copy.open("wb") as written:
                for block in self.bucket.blocks(self.path, self.bucket.size(self.path)):
                    written.write(block)
            yield copy


class FileContent(NamedTuple):
    """What identifies the rows of a file, and about how many there are; None if unknown."""

    import_id: str
    rows: int | None


def find_interaction_files(source: str) -> list[InteractionFile]:
    """Returns the files of a source, by name.

    Args:
        source: A file, a folder, or the URL of an object or a prefix, such as s3://bucket/prefix.
    Raises: InvalidRequest: there is no file that can be read. StoreError.
    """
    if "://" in source and not source.startswith("file://"):
        return _of_bucket(source)
    path = Path(source.removeprefix("file://")).expanduser()
    if path.is_dir():
        files = [str(one) for one in sorted(path.iterdir()) if _is_readable(one.name)]
        return [InteractionFile(one, one) for one in _some(files, source)]
    if not path.exists():
        raise InvalidRequest(f"there is no {source}; name a file, a folder or a bucket")
    return [InteractionFile(source, str(path))]


def _of_bucket(url: str) -> list[InteractionFile]:
    from nearline.store.open import open_files

    folder, _, name = url.rstrip("/").rpartition("/")
    if _is_readable(name):
        return [InteractionFile(url, name, open_files(folder))]
    bucket = open_files(url)
    names = [one for one in bucket.names("") if _is_readable(one)]
    return [InteractionFile(f"{bucket.url}/{one}", one, bucket) for one in _some(names, url)]


def _some(names: list[str], source: str) -> list[str]:
    if not names:
        raise InvalidRequest(f"{source} has no file whose name ends in {', '.join(ENDINGS)}")
    return names


def _is_readable(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def file_content(path: Path, columns: ColumnNames) -> FileContent:
    """Reads a file once: the same content and columns are the same import, whatever its name."""
    digest = hashlib.sha256("\0".join(columns).encode())
    lines = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            lines += block.count(b"\n")
    import_id = digest.hexdigest()[:_ID_CHARACTERS]
    name = path.name.lower()
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return FileContent(import_id, pq.read_metadata(path).num_rows)
    if name.endswith(".gz"):
        return FileContent(import_id, None)
    return FileContent(import_id, lines - name.endswith((".csv", ".tsv")))
