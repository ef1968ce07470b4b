"""Messages of protobuf as JSON files of a store, and numbered series of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from nearline.errors import SnapshotCorrupt
from nearline.store.files import StoreFiles

_M = TypeVar("_M", bound=Message)
_NAME = re.compile(r"[0-9]{10}\.json")


def message_to_json(message: Message) -> str:
    """Returns a message in protobuf's JSON form, with the field names of the .proto."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n"


def read_message(files: StoreFiles, path: str, message: _M, remedy: str) -> _M:
    """Reads a file into an empty message, and returns it; unknown fields are left out.

    Args:
        remedy: What to do about a damaged file, for the error.
    Raises: NotFound. SnapshotCorrupt: the file does not hold such a message.
    """
    try:
        text = files.read(path).decode("utf-8")
        return json_format.Parse(text, message, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise SnapshotCorrupt(f"{files.url}/{path} cannot be read: {error}; {remedy}") from error


class RecordSeries(Generic[_M]):
    """Numbered records in a folder: <number:010d>.json; only ever created, the highest counts.

    Args:
        files: The store's files.
        folder: Path of the folder.
        kind: Class of the records.
        remedy: What to do about a damaged record, for errors.
    """

    def __init__(self, files: StoreFiles, folder: str, kind: type[_M], remedy: str) -> None:
        self._files = files
        self._folder = folder
        self._kind = kind
        self._remedy = remedy

    def names(self, after: str = "") -> list[str]:
        """Lists the names of the records, in order. after: Only later ones; costs less."""
        names = self._files.names(self._folder, after)
        return [name for name in names if _NAME.fullmatch(name)]

    def read(self, name: str) -> _M:
        """Reads a record by its name. Raises: SnapshotCorrupt."""
        return read_message(self._files, f"{self._folder}/{name}", self._kind(), self._remedy)

    def newest(self, after: str = "") -> tuple[str, _M] | None:
        """Returns the newest record with its name; None if there is none.

        Args:
            after: Name of a record that is known; the answer is None if it is the newest.
        Raises: SnapshotCorrupt.
        """
        names = self.names(after)
        return (names[-1], self.read(names[-1])) if names else None

    def newest_first(self) -> Iterator[_M]:
        """Yields all records, newest first. Raises: SnapshotCorrupt."""
        return map(self.read, reversed(self.names()))

    def create(self, number: int, record: _M) -> str:
        """Creates the record of a number, whole or not at all; returns its name.

        Raises: AlreadyExists: a concurrent writer created that number.
        """
        name = f"{number:010d}.json"
        self._files.create(f"{self._folder}/{name}", message_to_json(record).encode())
        return name

    def remove(self, name: str) -> None:
        """Removes a record by its name, if it exists."""
        self._files.remove_file(f"{self._folder}/{name}")
