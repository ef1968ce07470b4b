"""What `nearline ingest` submits: documents of rows, whole files, addresses; loads the readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from index_builder.ingest.validation import KINDS
from index_builder.readers.corpus import files_below, is_one_document
from nearline import contract as c
from nearline import wire
from nearline.documents import check_id
from nearline.errors import InvalidRequest
from nearline_cli.inputs.item_rows import STDIN, ItemColumns, ItemRow, read_items
from nearline_cli.inputs.rejects import Rejects

# Far below what a message may hold, so that a request is there soon.
_REQUEST_BYTES = 8 << 20
_REQUEST_SOURCES = 256


class SizedSource(NamedTuple):
    """What is submitted, and about how many bytes it has."""

    source: c.IngestSource
    size: int


class NamedFile(NamedTuple):
    """A file to submit. name: As the user would name it. relative: Below what the user named."""

    name: str
    relative: str


NamedSource: TypeAlias = NamedFile | c.SourceUrl


def find_sources(names: Sequence[str]) -> list[NamedSource]:
    """Finds what names mean, in order: as named, the files of a folder by path.

    Args:
        names: Files, folders that are searched for files of the known kinds (hidden ones are passed
            over), addresses, and "-" for standard input.
    Raises: InvalidRequest: nothing there, a file of an unknown kind, or two of one id.
    """
    found = [one for name in names for one in _find(name)]
    by_id: dict[str, str] = {}
    for one in found:
        if not isinstance(one, NamedFile) or not is_one_document(one.relative):
            continue
        other = by_id.setdefault(one.relative, one.name)
        if other != one.name:
            raise InvalidRequest(
                f"{other} and {one.name} would both be document {one.relative!r}; name a folder "
                "above both",
                field="what",
            )
    return found


def read_sources(
    found: Iterable[NamedSource], columns: ItemColumns, refusals: Rejects
) -> Iterator[SizedSource]:
    """Yields what is to be submitted, the same each time for the same files.

    Args:
        found: As `find_sources` gives it.
        columns: Which column of rows is what.
        refusals: Told of what cannot be submitted.
    Raises: InvalidRequest: a file of rows that cannot be read at all.
    """
    for one in found:
        if isinstance(one, c.SourceUrl):
            yield SizedSource(one, len(one.url))
        elif one.name != STDIN and is_one_document(one.relative):
            yield from _whole(one, refusals)
        else:
            for row in read_items(one.name, columns):
                if isinstance(row, ItemRow):
                    yield from _writable(row, refusals)
                else:
                    refusals.refuse(str(row.location), InvalidRequest.reason, row.reason)


def request_batches(given: Iterable[SizedSource]) -> Iterator[list[c.IngestSource]]:
    """Yields sources in parts that one request holds."""
    part: list[c.IngestSource] = []
    filled = 0
    for source, size in given:
        if part and (len(part) == _REQUEST_SOURCES or filled + size > _REQUEST_BYTES):
            yield part
            part, filled = [], 0
        part.append(source)
        filled += size
    if part:
        yield part


def _find(name: str) -> Iterator[NamedSource]:
    if "://" in name:
        yield c.SourceUrl(name)
        return
    path = Path(name)
    if name == STDIN:
        yield NamedFile(name, name)
    elif path.is_dir():
        files = [NamedFile(str(file), relative) for file, relative in files_below(path, KINDS)]
        if not files:
            raise InvalidRequest(
                f"there is no file to read in {name}; known kinds are {', '.join(KINDS)}",
                field="what",
            )
        yield from files
    elif not path.exists():
        raise InvalidRequest(
            f"there is no {name}; name a file, a folder or an address", field="what"
        )
    elif path.suffix.lower() not in KINDS:
        raise InvalidRequest(
            f"{name} is of a kind that is not read; known are {', '.join(KINDS)}", field="what"
        )
    else:
        yield NamedFile(name, path.name)


def _whole(file: NamedFile, refusals: Rejects) -> Iterator[SizedSource]:
    try:
        check_id(file.relative)
        content = _content(file.name)
    except InvalidRequest as error:
        refusals.refuse(file.name, error.reason, error.message)
    else:
        yield SizedSource(c.SourceFile(file.relative, content), len(content))


def _content(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            # One more than is allowed tells that there is more.
            content = file.read(c.MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"it cannot be read: {error.strerror or error}") from error
    if len(content) > c.MAX_FILE_BYTES:
        raise InvalidRequest(
            f"it has more than the {c.MAX_FILE_BYTES} bytes that may be sent; cut it, or put it "
            "where workers read it and name its address"
        )
    return content


def _writable(row: ItemRow, refusals: Rejects) -> Iterator[SizedSource]:
    try:
        message = wire.source_to_proto(row.item)
        # As the service reads it: one that it refuses would take its whole request with it.
        wire.source_from_proto(message, "source")
    except InvalidRequest as error:
        refusals.refuse(str(row.location), error.reason, error.message, row.item.id)
    else:
        yield SizedSource(row.item, message.ByteSize())
