"""Finds the files of a corpus and reads each with the reader of its format."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from index_builder.documents.bad_rows import BadRows, DamagedFile
from index_builder.documents.records import SourceCount, SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.formats import MATRIX, SUFFIXES
from index_builder.readers.npy import read_matrix
from index_builder.readers.sandbox import SandboxReader
from nearline.errors import InvalidRequest
from nearline.store.durable import sha256_of


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str  # Shown to users.
    relative: str  # Path below the named folder; the id of a text file.
    size: int
    modified_ns: int


class Corpus:
    """The files that a build reads, in the order named; those in a folder by path.

    Args:
        paths: Files, and folders to search for files of known formats. Hidden files and folders are
            skipped.
        columns: Names of the columns.
    Raises: InvalidRequest: there is no file, a file of unknown format, or a .npy file among others.
    """

    def __init__(self, paths: Sequence[Path], columns: DocumentColumns) -> None:
        self._columns = columns
        self._files = [file for path in paths for file in _find(path)]
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
        return [repr(sorted(asdict(self._columns).items())), *(f.relative for f in self._files)]

    def sources(self) -> list[SourceCount]:
        """Returns the name, hash and modification time of every file."""
        return [
            SourceCount(uri=file.name, sha256=_hash(file), modified_us=file.modified_ns // 1_000)
            for file in self._files
        ]

    def rows(self, bad_rows: BadRows) -> Iterator[SourceRow]:
        """Yields every row of every file; malformed rows are counted.

        Raises: InvalidRequest: a table lacks a named column, or a file changed since it was found.
        """
        with contextlib.closing(SandboxReader()) as sandbox:
            for file in self._files:
                try:
                    yield from self._rows(file, bad_rows, sandbox)
                except DamagedFile as error:
                    bad_rows.add(SourceLocation(file.name, error.line), error.message)
                if (file.size, file.modified_ns) != _state(file.path):
                    raise InvalidRequest(
                        f"{file.name} changed during the build; restart the build",
                        field="corpus",
                    )

    def _rows(self, file: _File, bad_rows: BadRows, sandbox: SandboxReader) -> Iterator[SourceRow]:
        if file.path.suffix.lower() == MATRIX:
            # Nothing in it is parsed: it is mapped into memory.
            return read_matrix(file.path, file.name)
        return sandbox.read(file.path, file.name, file.relative, bad_rows, self._columns)


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yields the files with these suffixes in a folder by path, each with its path below the
    folder.

    Hidden files and files in hidden folders are skipped.
    """
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if file.is_file() and not hidden and file.suffix.lower() in suffixes:
            yield file, relative.as_posix()


def _find(path: Path) -> Iterator[_File]:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidRequest(
                f"{path} has no known file type; supported are {', '.join(SUFFIXES)}",
                field="corpus",
            )
        yield _File(path, str(path), path.name, *_state(path))
        return
    if not path.is_dir():
        raise InvalidRequest(f"{path} does not exist; check --corpus", field="corpus")
    found = 0
    for file, relative in files_below(path, SUFFIXES):
        found += 1
        yield _File(file, str(file), relative, *_state(file))
    if not found:
        raise InvalidRequest(
            f"{path} contains no readable file; supported types are {', '.join(SUFFIXES)}",
            field="corpus",
        )


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _hash(file: _File) -> str:
    try:
        return sha256_of(file.path)
    except OSError as error:
        raise InvalidRequest(
            f"{file.name} cannot be read: {error.strerror}; let this user read it, or leave it out",
            field="corpus",
        ) from error
