"""Finds the files of a corpus and reads each with the reader of its format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from index_builder.documents.bad_rows import BadRows, DamagedFile
from index_builder.documents.records import SourceCount, SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.folder import (
    FolderContents,
    FolderFile,
    describe_unread,
    list_folder,
)
from index_builder.readers.formats import MATRIX, SUFFIXES
from index_builder.readers.npy import read_matrix
from index_builder.readers.sandbox import SandboxReader
from nearline.errors import InvalidRequest
from nearline.store.durable import sha256_of


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A file of a corpus."""

    path: Path
    name: str  # Shown to users.
    relative: str  # Path below the named folder; the id of a text file.
    size: int
    modified_ns: int


class Corpus:
    """The files that a build reads, in the order named; those in a folder by path.

    Args:
        paths: Files, and folders to search for files of known formats; see `list_folder`.
        columns: Names of the columns.
        leave_out_tables: Whether a table that lacks a named column is one malformed row; otherwise
            it ends the build.
    Raises: InvalidRequest: there is no file, a file of unknown format, or a .npy file among others.
    Attributes:
        skipped: Paths of files in the folders that are of other formats.
    """

    def __init__(
        self, paths: Sequence[Path], columns: DocumentColumns, *, leave_out_tables: bool = False
    ) -> None:
        self._columns = columns
        self._leave_out_tables = leave_out_tables
        found = [_find(path) for path in paths]
        self._files = [_file(*file) for one in found for file in one.files]
        self._refused = [file for one in found for file in one.refused]
        self.skipped = [name for one in found for name in one.skipped]
        if not self._files:
            raise InvalidRequest("no corpus was given; use --corpus FILE|DIR", field="corpus")
        matrices = [file for file in self._files if file.path.suffix.lower() == MATRIX]
        if matrices and len(self._files) > 1:
            raise InvalidRequest(
                f"{matrices[0].name} is a matrix of vectors and must be the only file, but there "
                f"are {len(self._files)}; for documents with vectors use JSON lines or Parquet "
                "with --vector-column",
                field="corpus",
            )
        self.brings_vectors = bool(matrices) or bool(columns.vector)

    @property
    def empty(self) -> bool:
        """Whether every file is empty."""
        return not any(file.size for file in self._files)

    @property
    def reading(self) -> list[str]:
        """How the files are read: two corpora with equal values read equal files alike."""
        columns = repr(sorted(asdict(self._columns).items()))
        refused = [f"refused {file.path}" for file in self._refused]
        return [columns, *(file.relative for file in self._files), *refused]

    def sources(self) -> list[SourceCount]:
        """Returns the name, hash and modification time of every file."""
        return [
            SourceCount(
                uri=file.name, sha256=self._hash(file), modified_us=file.modified_ns // 1_000
            )
            for file in self._files
        ]

    def rows(self, bad_rows: BadRows) -> Iterator[SourceRow]:
        """Yields every row of every file; malformed rows, and files not read, are counted.

        Raises: InvalidRequest: a table lacks a named column, or a file changed since it was found.
        """
        for refused in self._refused:
            bad_rows.add(SourceLocation(str(refused.path), 0), refused.reason)
        with contextlib.closing(SandboxReader()) as sandbox:
            for file in self._files:
                try:
                    yield from self._rows(file, bad_rows, sandbox)
                except DamagedFile as error:
                    bad_rows.add(SourceLocation(file.name, error.line), error.message)
                except InvalidRequest as error:
                    if not self._leave_out_tables:
                        raise
                    bad_rows.add(SourceLocation(file.name, 0), error.message)
                if (file.size, file.modified_ns) != _state(file.path):
                    raise InvalidRequest(
                        f"{file.name} changed during the build; restart the build",
                        field="corpus",
                    )

    def _hash(self, file: CorpusFile) -> str:
        try:
            return sha256_of(file.path)
        except OSError as error:
            raise InvalidRequest(
                f"{file.name} cannot be read: {error.strerror}; let this user read it, or leave it "
                "out",
                field="corpus",
            ) from error

    def _rows(
        self, file: CorpusFile, bad_rows: BadRows, sandbox: SandboxReader
    ) -> Iterator[SourceRow]:
        if file.path.suffix.lower() == MATRIX:
            # Nothing in it is parsed: it is mapped into memory.
            return read_matrix(file.path, file.name)
        return sandbox.read(file.path, file.name, file.relative, bad_rows, self._columns)


def _find(path: Path) -> FolderContents:
    """Returns a named file, or the contents of a named folder."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidRequest(
                f"{path} has no known file type; supported are {', '.join(SUFFIXES)}",
                field="corpus",
            )
        return FolderContents(files=[FolderFile(path, path.name)])
    if not path.is_dir():
        raise InvalidRequest(f"{path} does not exist; check --corpus", field="corpus")
    found = list_folder(path, SUFFIXES)
    if not found.files:
        raise InvalidRequest(
            f"{path} contains no readable file; supported types are {', '.join(SUFFIXES)}"
            + describe_unread(found),
            field="corpus",
        )
    return found


def _file(path: Path, relative: str) -> CorpusFile:
    return CorpusFile(path, str(path), relative, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
