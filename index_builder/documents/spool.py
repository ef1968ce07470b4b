"""A database of documents between reading and writing, which keeps memory use constant."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.records import DocumentVersion, PreparedDocument, SourceLocation
from nearline.errors import InvalidRequest, StoreError
from nearline.items.attributes import encode
from nearline.items.documents import chunk_texts
from nearline.store.snapshot import shard_of

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, shard INTEGER, id TEXT, title TEXT, text TEXT, attributes TEXT,
    first_chunk INTEGER, bounds BLOB, source TEXT, line INTEGER,
    version INTEGER, expires_us INTEGER, changed_us INTEGER, placed_us INTEGER, patches TEXT
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
"""
_INSERT = "INSERT INTO documents VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ROWS_PER_INSERT = 1024
_DUPLICATES_SHOWN = 5


class StoredDocument(NamedTuple):
    """A spooled document: attributes as JSON; bounds (n, 2) int64, start and end of each chunk."""

    id: str
    title: str
    text: str
    attributes: str
    bounds: NDArray[np.int64]
    version: DocumentVersion = DocumentVersion()


class Chunk(NamedTuple):
    """A chunk to embed, with the id and title of its document; see `chunk_texts`."""

    row: int
    document_id: str
    title: str
    text: str


class Spool:
    """Documents and their chunks, written once in reading order, read by shard in id order.

    Rows of chunks are numbered in reading order over all shards.

    Args:
        folder: Work folder; holds the database.
        shards: Number of shards.
    """

    def __init__(self, folder: Path, shards: int) -> None:
        self._shards = shards
        self._path = folder / "documents.sqlite"
        self._connection = self._connect()
        self._pending: list[tuple[object, ...]] = []
        self.documents = self.chunks = self.max_chunks = 0

    def begin(self) -> None:
        """Empties the spool."""
        self._connection.close()
        self._path.unlink(missing_ok=True)
        self._connection = self._connect()
        with work_folder_errors(self._path.parent):
            # Reading restarts after a kill, so nothing has to survive before `mark_read`.
            self._connection.executescript(_SCHEMA)
        self._pending.clear()
        self.documents = self.chunks = self.max_chunks = 0

    def add(self, document: PreparedDocument) -> None:
        """Adds a document without its vectors."""
        location, item, spans, _, version = document
        bounds = np.asarray(spans, "<i8").tobytes()
        self._pending.append(
            (
                shard_of(item.id, self._shards),
                *(item.id, item.title, item.text, encode(item.attributes)),
                *(self.chunks, bounds, location.source, location.line),
                *version,
            )
        )
        self.documents += 1
        self.chunks += len(spans)
        self.max_chunks = max(self.max_chunks, len(spans))
        if len(self._pending) == _ROWS_PER_INSERT:
            self._insert()

    def finish(self) -> None:
        """Builds the indexes of the database and checks that ids are unique.

        Raises: InvalidRequest: an id occurs twice; the message names both locations.
        """
        self._insert()
        with work_folder_errors(self._path.parent):
            try:
                self._connection.execute("CREATE UNIQUE INDEX by_id ON documents (shard, id)")
                self._connection.execute("CREATE INDEX by_chunk ON documents (first_chunk)")
            except sqlite3.IntegrityError as error:
                raise self._duplicates() from error

    def mark_read(self, facts: dict[str, str]) -> None:
        """Records durably that reading has finished, with facts for a later run."""
        facts = facts | {
            "documents": str(self.documents),
            "chunks": str(self.chunks),
            "max_chunks": str(self.max_chunks),
        }
        with work_folder_errors(self._path.parent), self._path.open("rb") as stream:
            os.fsync(stream.fileno())
            self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            self._connection.commit()

    def facts(self) -> dict[str, str] | None:
        """Returns the facts of an earlier run; None if it did not finish reading."""
        try:
            facts = dict(self._connection.execute("SELECT name, value FROM facts"))
        except sqlite3.DatabaseError:
            return None
        if "documents" not in facts:
            return None
        self.documents = int(facts["documents"])
        self.chunks = int(facts["chunks"])
        self.max_chunks = int(facts["max_chunks"])
        return facts

    def shard_sizes(self) -> list[tuple[int, int]]:
        """Returns (documents, chunks) of every shard, by number."""
        sizes = dict.fromkeys(range(self._shards), (0, 0))
        for shard, documents, chunks in self._connection.execute(
            "SELECT shard, count(*), sum(length(bounds)) / 16 FROM documents GROUP BY shard"
        ):
            sizes[shard] = (documents, chunks)
        return list(sizes.values())

    def iter_chunks(self) -> Iterator[Chunk]:
        """Yields every chunk in row order."""
        cursor = self._connection.execute(
            "SELECT id, title, text, first_chunk, bounds FROM documents ORDER BY number"
        )
        for document_id, title, text, first, bounds in cursor:
            for offset, chunk in enumerate(_chunk_texts(text, bounds)):
                yield Chunk(first + offset, document_id, title, chunk)

    def chunks_of(self, rows: NDArray[np.int64]) -> Iterator[Chunk]:
        """Yields the chunks of some rows. rows: (n,), ascending, each below `chunks`."""
        first, texts = 0, list[str]()
        for row in rows.tolist():
            if row >= first + len(texts):
                document_id, title, text, first, bounds = self._connection.execute(
                    "SELECT id, title, text, first_chunk, bounds FROM documents "
                    "WHERE first_chunk <= ? ORDER BY first_chunk DESC LIMIT 1",
                    (row,),
                ).fetchone()
                texts = _chunk_texts(text, bounds)
            yield Chunk(row, document_id, title, texts[row - first])

    def place_of(self, row: int) -> tuple[str, int]:
        """Returns the id of the document of a chunk, and the number of the chunk within it."""
        document_id, first = self._connection.execute(
            "SELECT id, first_chunk FROM documents "
            "WHERE first_chunk <= ? ORDER BY first_chunk DESC LIMIT 1",
            (row,),
        ).fetchone()
        return document_id, row - first

    def shard_chunk_rows(self, shard: int) -> NDArray[np.int64]:
        """Returns the rows of a shard's chunks in the order of the snapshot: (n,) int64."""
        cursor = self._connection.execute(
            "SELECT first_chunk, length(bounds) / 16 FROM documents WHERE shard = ? ORDER BY id",
            (shard,),
        )
        pairs = np.fromiter(cursor, np.dtype([("first", np.int64), ("chunks", np.int64)]))
        counts = pairs["chunks"]
        before = np.cumsum(counts) - counts
        rows: NDArray[np.int64] = np.repeat(pairs["first"] - before, counts)
        return rows + np.arange(len(rows))

    def first_rows(self) -> NDArray[np.int64]:
        """Returns the row of every document's first chunk, ascending: (documents,) int64."""
        cursor = self._connection.execute("SELECT first_chunk FROM documents ORDER BY number")
        return np.fromiter((first for (first,) in cursor), np.int64)

    def first_row(self, document_id: str) -> int | None:
        """Returns the row of a document's first chunk; None if there is no such document."""
        found = self._connection.execute(
            "SELECT first_chunk FROM documents WHERE shard = ? AND id = ?",
            (shard_of(document_id, self._shards), document_id),
        ).fetchone()
        return None if found is None else int(found[0])

    def shard_documents(self, shard: int) -> Iterator[StoredDocument]:
        """Yields the documents of a shard in id order (by code point)."""
        cursor = self._connection.execute(
            "SELECT id, title, text, attributes, bounds, version, expires_us, changed_us, "
            "placed_us, patches FROM documents WHERE shard = ? ORDER BY id",
            (shard,),
        )
        for document_id, title, text, attributes, bounds, *version in cursor:
            pairs = np.frombuffer(bounds, "<i8").reshape(-1, 2)
            yield StoredDocument(
                document_id, title, text, attributes, pairs, DocumentVersion(*version)
            )

    def used_version_fields(self) -> DocumentVersion:
        """Returns for each field whether any document uses it: 1, or 0 or None."""
        found = self._connection.execute(
            "SELECT max(version != 0), max(expires_us IS NOT NULL), max(changed_us != 0), "
            "max(placed_us != 0), max(patches != '') FROM documents"
        ).fetchone()
        return DocumentVersion(*found)

    def iter_attributes(self) -> Iterator[tuple[str, str]]:
        """Yields the attributes of every document as JSON, with its id and location as text."""
        cursor = self._connection.execute(
            "SELECT attributes, id, source, line FROM documents ORDER BY number"
        )
        for attributes, document_id, source, line in cursor:
            yield attributes, f"{document_id!r}, {SourceLocation(source, line)}"

    def shard_attributes(self, shard: int) -> Iterator[str]:
        """Yields the attributes of a shard's documents as JSON, in id order."""
        cursor = self._connection.execute(
            "SELECT attributes FROM documents WHERE shard = ? ORDER BY id", (shard,)
        )
        for (attributes,) in cursor:
            yield attributes

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        with work_folder_errors(self._path.parent):
            # One thread at a time uses the connection, but not always the same one.
            return sqlite3.connect(self._path, check_same_thread=False)

    def _insert(self) -> None:
        with work_folder_errors(self._path.parent):
            self._connection.executemany(_INSERT, self._pending)
            self._connection.commit()
        self._pending.clear()

    def _duplicates(self) -> InvalidRequest:
        rows = self._connection.execute(
            "SELECT a.id, a.source, a.line, b.source, b.line, min(b.number) FROM documents a JOIN "
            "(SELECT shard, id, min(number) AS first FROM documents GROUP BY shard, id "
            "HAVING count(*) > 1 ORDER BY first LIMIT ?) d USING (id) JOIN documents b "
            "ON b.id = a.id AND b.number > a.number WHERE a.number = d.first "
            "GROUP BY a.id ORDER BY a.number",
            (_DUPLICATES_SHOWN,),
        ).fetchall()
        shown = "".join(
            f"\n  {id_!r}: {SourceLocation(*first)} and {SourceLocation(*second)}"
            for id_, *locations in rows
            for first, second in [(locations[:2], locations[2:4])]
        )
        return InvalidRequest(
            f"duplicate ids; every document needs a unique id:{shown}", field="id"
        )


def _chunk_texts(text: str, bounds: bytes) -> list[str]:
    return chunk_texts(text, np.frombuffer(bounds, "<i8").reshape(-1, 2).tolist())


@contextlib.contextmanager
def work_folder_errors(folder: Path) -> Iterator[None]:
    """Turns errors of files and of SQLite in a work folder into StoreErrors with the remedy."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreError(
            f"work folder {folder}: {error}; free some space or choose another --work-dir"
        ) from error
