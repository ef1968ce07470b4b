"""Finds the files of a corpus and reads them, each by its kind."""

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
_APART = {".html", ".htm", ".pdf"}
SUFFIXES = sorted(_JSON_LINES | _DELIMITED | _PARQUET | _PROSE | _APART | {MATRIX})


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str  # As the user would name it.
    relative: str  # Below what the user named; the id of a text file.
    size: int
    changed_ns: int


class Corpus:
    """The files that a build reads, in order: as named, those in a folder by path.

    Args:
        paths: Files, and folders that are searched for files of the known kinds. Hidden files and
            folders are passed over.
        columns: Which column is what.
    Raises: InvalidRequest: nothing there, a file of an unknown kind, or a .npy beside other files.
    """

    def __init__(self, paths: Sequence[Path], columns: DocumentColumns) -> None:
        self._columns = columns
        self._files = [file for path in paths for file in _find(path)]
        if not self._files:
            raise InvalidRequest("no corpus was named; use --corpus FILE|DIR", field="corpus")
        matrices = [file for file in self._files if file.path.suffix.lower() == MATRIX]
        if matrices and len(self._files) > 1:
            raise InvalidRequest(
                f"{matrices[0].name} is a matrix of vectors and must be the only file, there are "
                f"{len(self._files)}; for documents with vectors use JSON lines or Parquet with "
                "--vector-column",
                field="corpus",
            )
        self.brings_vectors = bool(matrices) or bool(columns.vector)

    @property
    def reading(self) -> list[str]:
        """Says how the files are read: two corpora that say the same read equal files alike."""
        return [repr(sorted(asdict(self._columns).items())), *(f.relative for f in self._files)]

    def sources(self) -> list[SourceCount]:
        """Hashes every file."""
        return [
            SourceCount(uri=file.name, sha256=_hash(file), modified_us=file.changed_ns // 1_000)
            for file in self._files
        ]

    def rows(self, bad_rows: BadRows) -> Iterator[SourceRow]:
        """Yields every row of every file; malformed ones are counted.

        Raises: InvalidRequest: a whole file cannot be read, or it changed since it was found.
        """
        with contextlib.closing(SandboxReader()) as apart:
            for file in self._files:
                yield from read_file(
                    file.path, file.name, file.relative, self._columns, bad_rows, apart
                )
                if (file.size, file.changed_ns) != _state(file.path):
                    raise InvalidRequest(
                        f"{file.name} changed while it was read; start the build again",
                        field="corpus",
                    )


def read_file(
    path: Path,
    name: str,
    document_id: str,
    columns: DocumentColumns,
    bad_rows: BadRows,
    apart: SandboxReader,
) -> Iterator[SourceRow]:
    """Yields the rows of a file, by its kind; malformed ones are counted.

    Args:
        path: The file; its ending says what kind it is, one of SUFFIXES.
        name: As the user would name it.
        document_id: Id of the document where the file is one.
        columns: Which column is what.
        bad_rows: Told of malformed rows.
        apart: Reads HTML and PDF.
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
    if suffix in _APART:
        return apart.read(path, name, document_id, bad_rows)
    return read_prose(path, name, document_id, bad_rows)


def is_one_document(name: str) -> bool:
    """Returns whether a file of this name is one document, rather than one on each row."""
    return Path(name).suffix.lower() in _PROSE | _APART


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yields the files of these kinds in a folder, by path, each with its path below the folder.

    Hidden files, and those in hidden folders, are passed over.
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
                f"{path} is of a kind that is not read; known are {', '.join(SUFFIXES)}",
                field="corpus",
            )
        yield _File(path, str(path), path.name, *_state(path))
        return
    if not path.is_dir():
        raise InvalidRequest(f"there is no {path}; check --corpus", field="corpus")
    found = 0
    for file, relative in files_below(path, SUFFIXES):
        found += 1
        yield _File(file, str(file), relative, *_state(file))
    if not found:
        raise InvalidRequest(
            f"there is no file to read in {path}; known kinds are {', '.join(SUFFIXES)}",
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
