"""Finds and reads what `nearline ingest` submits: rows, whole files and addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from index_builder.documents.bad_rows import EMPTY_FILE
from index_builder.ingest.validation import KINDS
from index_builder.readers.folder import RefusedFile, describe_unread, list_folder
from index_builder.readers.formats import is_one_document
from nearline import contract as c, wire
from nearline.errors import InvalidRequest
from nearline.items.documents import check_id
from nearline_cli.inputs.item_columns import ItemColumns
from nearline_cli.inputs.item_rows import STDIN, ItemRow, read_items
from nearline_cli.inputs.rejects import Rejects

# Far below the limit of a message, so that each request is quick.
_REQUEST_BYTES = 8 << 20
_REQUEST_SOURCES = 256


class SizedSource(NamedTuple):
    """A source to submit, and its approximate size in bytes."""

    source: c.IngestSource
    size: int


class NamedFile(NamedTuple):
    """A file to submit.

    name: Path as the user would write it. relative: Path below the folder that the user named.
    """

    name: str
    relative: str


NamedSource: TypeAlias = NamedFile | c.SourceUrl


class FoundSources(NamedTuple):
    """The sources that a user named.

    sources: Sources to submit. refused: Links and folders that are not read. skipped: Files of
    other kinds in named folders.
    """

    sources: list[NamedSource]
    refused: list[RefusedFile]
    skipped: list[str]


def find_sources(names: Sequence[str]) -> FoundSources:
    """Resolves names to sources, in the order of the names; files of a folder are sorted by path.

    Args:
        names: Files, folders (see `list_folder`), addresses, and "-" for standard input.
    Raises:
        InvalidRequest: A file is missing or of an unknown kind, a folder has none that can be read,
            or two files have the same id.
    """
    found = FoundSources([], [], [])
    for name in names:
        _find(name, found)
    by_id: dict[str, str] = {}
    for file in found.sources:
        if not isinstance(file, NamedFile) or not is_one_document(file.relative):
            continue
        other = by_id.setdefault(file.relative, file.name)
        if other != file.name:
            raise InvalidRequest(
                f"{other} and {file.name} would both be document {file.relative!r}; name a folder "
                "above both",
                field="what",
            )
    return found


def read_sources(
    found: FoundSources, columns: ItemColumns, rejects: Rejects
) -> Iterator[SizedSource]:
    """Yields the sources to submit; the order is the same for the same files.

    Args:
        found: Result of `find_sources`.
        columns: Names of the columns of rows.
        rejects: Collects documents that cannot be submitted.
    """
    for refused in found.refused:
        rejects.refuse(str(refused.path), InvalidRequest.reason, refused.reason)
    for one in found.sources:
        if isinstance(one, c.SourceUrl):
            yield SizedSource(one, len(one.url))
        elif one.name != STDIN and is_one_document(one.relative):
            yield from _whole(one, rejects)
        else:
            yield from _rows(one, columns, rejects)


def request_batches(sources: Iterable[SizedSource]) -> Iterator[list[c.IngestSource]]:
    """Yields sources in batches of one request each."""
    part: list[c.IngestSource] = []
    filled = 0
    for source, size in sources:
        if part and (len(part) == _REQUEST_SOURCES or filled + size > _REQUEST_BYTES):
            yield part
            part, filled = [], 0
        part.append(source)
        filled += size
    if part:
        yield part


def _find(name: str, found: FoundSources) -> None:
    """Adds what a name stands for."""
    if "://" in name:
        found.sources.append(c.SourceUrl(name))
        return
    path = Path(name)
    if name == STDIN:
        found.sources.append(NamedFile(name, name))
    elif path.is_dir():
        contents = list_folder(path, KINDS)
        if not contents.files:
            raise InvalidRequest(
                f"no file in {name} can be read; known kinds are {', '.join(KINDS)}"
                + describe_unread(contents),
                field="what",
            )
        found.sources.extend(NamedFile(str(file), relative) for file, relative in contents.files)
        found.refused.extend(contents.refused)
        found.skipped.extend(contents.skipped)
    elif not path.exists():
        raise InvalidRequest(
            f"there is no {name}; name a file, a folder or an address", field="what"
        )
    elif path.suffix.lower() not in KINDS:
        raise InvalidRequest(
            f"{name} is of an unknown kind; known kinds are {', '.join(KINDS)}", field="what"
        )
    else:
        found.sources.append(NamedFile(name, path.name))


def _rows(file: NamedFile, columns: ItemColumns, rejects: Rejects) -> Iterator[SizedSource]:
    try:
        for row in read_items(file.name, columns, on_list=rejects.detect):
            if isinstance(row, ItemRow):
                yield from _writable(row, rejects)
            else:
                rejects.refuse(str(row.location), InvalidRequest.reason, row.reason)
    except InvalidRequest as error:
        # One table that cannot be read keeps none of the others from being submitted.
        rejects.refuse(file.name, error.reason, error.message)


def _whole(file: NamedFile, rejects: Rejects) -> Iterator[SizedSource]:
    try:
        check_id(file.relative)
        content = _content(file.name)
    except InvalidRequest as error:
        rejects.refuse(file.name, error.reason, error.message)
    else:
        yield SizedSource(c.SourceFile(file.relative, content), len(content))


def _content(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            # One byte more than allowed shows that the file is too large.
            content = file.read(c.MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"the file cannot be read: {error.strerror or error}") from error
    if not content:
        raise InvalidRequest(EMPTY_FILE)
    if len(content) > c.MAX_FILE_BYTES:
        raise InvalidRequest(
            f"the file has more than the {c.MAX_FILE_BYTES} bytes that may be sent; split it, or "
            "store it where workers can read it and name its address"
        )
    return content


def _writable(row: ItemRow, rejects: Rejects) -> Iterator[SizedSource]:
    try:
        message = wire.source_to_proto(row.item)
        # Validated as in the service: one invalid row would fail the whole request.
        wire.source_from_proto(message, "source")
    except InvalidRequest as error:
        rejects.refuse(str(row.location), error.reason, error.message, row.item.id)
    else:
        yield SizedSource(row.item, message.ByteSize())
