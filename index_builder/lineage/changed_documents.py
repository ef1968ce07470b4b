"""Live changes by document, in a database that keeps memory use constant.

Each document has one row: its last whole change and the attributes set after it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from index_builder.documents.spool import work_folder_errors
from index_builder.lineage.change_order import DocumentChanges, decode_patches, encode_patches
from nearline.store.snapshot import partition_of
from retrieval.changelog import codec
from retrieval.changelog.records import ChangeEntry

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE changes (
    id TEXT PRIMARY KEY, position INTEGER, time_us INTEGER, change BLOB, patches TEXT,
    version INTEGER, seen INTEGER DEFAULT 0
) WITHOUT ROWID;
"""
_UPSERT = "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?, ?, 0)"
_SELECT = "SELECT id, position, time_us, change, patches, version FROM changes"


class ChangedDocuments:
    """Documents with live changes.

    Args:
        folder: Work folder; holds the database, which is created empty.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "changes.sqlite"
        self._path.unlink(missing_ok=True)
        self.count = 0
        with work_folder_errors(self._path.parent):
            self._connection = sqlite3.connect(self._path, check_same_thread=False)
            self._connection.executescript(_SCHEMA)

    def add(self, entries: Iterable[ChangeEntry]) -> None:
        """Adds changes; the changes of a document must be in order."""
        with work_folder_errors(self._path.parent):
            for entry in entries:
                self.count += 1
                document_id = entry.change.document_id
                changes = (self._find(document_id) or DocumentChanges()).followed_by(entry)
                self._connection.execute(_UPSERT, _row(document_id, changes))
            self._connection.commit()

    def find(self, document_id: str) -> DocumentChanges:
        """Returns the changes of a document, which may be empty, and marks it as seen."""
        with work_folder_errors(self._path.parent):
            found = self._find(document_id)
            if found is None:
                return DocumentChanges()
            self._connection.execute("UPDATE changes SET seen = 1 WHERE id = ?", (document_id,))
            return found

    def unseen(self) -> Iterator[tuple[str, DocumentChanges]]:
        """Yields the documents that were not looked up, in id order."""
        with work_folder_errors(self._path.parent):
            for row in self._connection.execute(f"{_SELECT} WHERE seen = 0 ORDER BY id"):
                yield row[0], _changes(row)

    def close(self) -> None:
        """Closes the database and removes it."""
        self._connection.close()
        self._path.unlink(missing_ok=True)

    def _find(self, document_id: str) -> DocumentChanges | None:
        row = self._connection.execute(f"{_SELECT} WHERE id = ?", (document_id,)).fetchone()
        return None if row is None else _changes(row)


def _row(document_id: str, changes: DocumentChanges) -> tuple[object, ...]:
    whole = changes.whole
    patches = encode_patches(changes.patches)
    if whole is None:
        return document_id, None, None, None, patches, changes.version
    data = codec.encode_change(whole.change)
    return document_id, whole.position, whole.time_us, data, patches, changes.version


def _changes(row: tuple[str, int, int, bytes | None, str, int]) -> DocumentChanges:
    document_id, position, time_us, data, patches, version = row
    whole = None
    if data is not None:
        change = codec.decode_change(data)
        whole = ChangeEntry(partition_of(document_id), position, time_us, change)
    return DocumentChanges(whole, decode_patches(patches), version)
