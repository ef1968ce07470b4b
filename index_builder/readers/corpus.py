"""Finds the files of a corpus and reads each with the reader of its format."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceCount, SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.delimited import read_delimited
from index_builder.readers.json_lines import read_json_lines
from index_builder.readers.npy import read_matrix
from index_builder.readers.sandbox import SandboxReader
from index_builder.readers.text import read_prose
from nearline.errors import InvalidRequest
from nearline.store.durable import sha256_of

MATRIX = ".npy"
_JSON_LINES = {".jsonl", ".ndjson"}
_DELIMITED = {".csv", ".tsv"}
_PARQUET = {".parquet"}
_PROSE = {".txt", ".md", ".markdown"}
_SANDBOXED = {".html", ".htm", ".pdf"}
SUFFIXES = sorted(_JSON_LINES | _DELIMITED | _PARQUET | _PROSE | _SANDBOXED | {MATRIX})


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

        Raises: InvalidRequest: a whole file cannot be read, or changed since it was found.
        """
        with contextlib.closing(SandboxReader()) as sandbox:
            for file in self._files:
                yield from read_file(
                    file.path, file.name, file.relative, self._columns, bad_rows, sandbox
                )
                if (file.size, file.modified_ns) != _state(file.path):
                    raise InvalidRequest(
                        f"{file.name} changed during the build; restart the build",
                        field="corpus",
                    )


def read_file(
    path: Path,
    name: str,
    document_id: str,
    columns: DocumentColumns,
    bad_rows: BadRows,
    sandbox: SandboxReader,
) -> Iterator[SourceRow]:
    """Yields the rows of a file according to its format; malformed rows are counted.

    Args:
        path: The file; its suffix, one of SUFFIXES, determines the format.
        name: Its name as users know it.
        document_id: Id of the document if the file is one document.
        columns: Names of the columns.
        bad_rows: Receives malformed rows.
        sandbox: Reads HTML and PDF.
    Raises: InvalidRequest: the whole file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in _JSON_LINES:
        return read_json_lines(path, name, columns, bad_rows)
    if suffix in _DELIMITED:
        return read_delimited(path, name, columns, bad_rows)
    if suffix in _PARQUET:
        from index_builder.readers.parquet import read_parquet

        return read_parquet(path, name, columns, bad_rows)
    if suffix == MATRIX:
        return read_matrix(path, name)
    if suffix in _SANDBOXED:
        return sandbox.read(path, name, document_id, bad_rows)
    return read_prose(path, name, document_id, bad_rows)


def is_one_document(name: str) -> bool:
    """Returns whether a file of this name is one document, rather than one per row."""
    return Path(name).suffix.lower() in _PROSE | _SANDBOXED


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
            f"{file.name} cannot be read: {error.strerror}", field="corpus"
        ) from error
