"""Imported interactions of a collection, as files of its store.

Layout:
    <store>/<collection>/interactions/<import>/<part:06d>-<rows:06d>.parquet
    <store>/<collection>/interactions/.deleted/<digest of a user>-<microseconds since 1970>
Files are created and never changed. All parts of an import but the last have IMPORT_PART_ROWS rows.
A file in .deleted says when a user was deleted: rows of the user that are not newer do not count,
however long ago that was. Dropping the collection removes all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nearline.errors import AlreadyExists, SnapshotCorrupt
from nearline.store.snapshot import Store, check_collection

# Of every part.
COLUMNS = ("user", "item", "time_us", "kind", "weight")
_FOLDER, _DELETED = "interactions", ".deleted"
_PART = re.compile(r"([0-9]{6})-([0-9]{6})\.parquet")
_MARK = re.compile(r"([0-9a-f]{32})-([0-9]{1,16})")


class ImportPart(NamedTuple):
    """A part of an import. path: Of its file in the store. number: From 0."""

    path: str
    number: int
    rows: int


class ImportedInteractions:
    """The imported interactions of a collection. Every method blocks, and may raise StoreError.

    Args:
        store: The store.
        collection: Name of the collection.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._files = store.files
        self._path = f"{check_collection(collection)}/{_FOLDER}"

    def names(self) -> list[str]:
        """Lists the imports."""
        return [name for name in self._files.names(self._path) if not name.startswith(".")]

    def parts(self, name: str) -> dict[int, ImportPart]:
        """Lists the parts of an import by number, in order."""
        found: dict[int, ImportPart] = {}
        for file in self._files.names(f"{self._path}/{name}"):
            if match := _PART.fullmatch(file):
                path = f"{self._path}/{name}/{file}"
                part = ImportPart(path, int(match[1]), int(match[2]))
                found.setdefault(part.number, part)
        return found

    def count_rows(self) -> int:
        """Returns the number of rows of all imports, with those of deleted users."""
        return sum(part.rows for name in self.names() for part in self.parts(name).values())

    def read(self, part: ImportPart, dictionaries: Sequence[str] = ()) -> Any:
        """Reads a part as an Arrow table of `importer.SCHEMA`.

        Args:
            dictionaries: Columns to return as dictionaries.
        Raises: SnapshotCorrupt: it is damaged. NotFound: it was removed.
        """
        # Imported late: a router that deletes users needs no pyarrow.
        import pyarrow as pa
        import pyarrow.parquet as pq

        data = io.BytesIO(self._files.read(part.path))
        try:
            table = pq.read_table(
                data, read_dictionary=list(dictionaries), page_checksum_verification=True
            )
            if table.num_rows != part.rows or table.column_names != list(COLUMNS):
                raise pa.ArrowInvalid(f"it has other rows or columns than {', '.join(COLUMNS)}")
            if any(column.null_count for column in table.columns):
                raise pa.ArrowInvalid("values are missing")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SnapshotCorrupt(
                f"{self._files.url}/{part.path} cannot be read: {error}; remove the file, and "
                "import it again"
            ) from error
        return table

    def create(self, name: str, number: int, table: Any) -> ImportPart:
        """Creates a part, whole and durable or not at all; accepts one with the same rows.

        Raises: AlreadyExists: the part has other rows.
        """
        import pyarrow.parquet as pq

        path = f"{self._path}/{name}/{number:06d}-{table.num_rows:06d}.parquet"
        part = ImportPart(path, number, table.num_rows)
        data = io.BytesIO()
        pq.write_table(table, data, compression="zstd", write_page_checksum=True)
        try:
            # Who did what concerns no other user of the machine.
            self._files.create(path, data.getvalue(), private=True)
        except AlreadyExists:
            if not self.read(part).equals(table):
                raise
        if self.parts(name).get(number) != part:
            raise AlreadyExists(f"another stream stored part {number} of import {name!r}")
        return part

    def mark_deleted(self, user_id: str, deleted_us: int) -> bool:
        """Leaves out the rows of a user up to a time, for good; also those imported later.

        Returns: Whether the collection has imports.
        """
        with contextlib.suppress(AlreadyExists):
            mark = f"{self._path}/{_DELETED}/{_digest(user_id)}-{deleted_us}"
            self._files.create(mark, b"", private=True)
        return bool(self.names())

    def deleted(self, users: Sequence[str]) -> Mapping[str, int]:
        """Returns when users were last deleted, in microseconds; others are omitted."""
        marks: dict[str, int] = {}
        for name in self._files.names(f"{self._path}/{_DELETED}"):
            if match := _MARK.fullmatch(name):
                marks[match[1]] = max(int(match[2]), marks.get(match[1], 0))
        if not marks:
            return {}
        digests = ((user, _digest(user)) for user in users)
        return {user: marks[digest] for user, digest in digests if digest in marks}


def _digest(user_id: str) -> str:
    return hashlib.blake2b(user_id.encode(), digest_size=16, person=b"user").hexdigest()
