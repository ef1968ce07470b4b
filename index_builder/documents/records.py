"""Documents as they pass through a build, and the sources they are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Item
from nearline.sentences import Span
from nearline.v1 import snapshot_pb2


class SourceLocation(NamedTuple):
    """Where a document was read: file and line, or row, from 1."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


class SourceRow(NamedTuple):
    """A document as read, and where."""

    location: SourceLocation
    item: Item


class DocumentVersion(NamedTuple):
    """What is kept of how a document came about; all empty where it never met a live change.

    version: Number of the last live change; 0: none since it was imported.
    expires_us: Time after which it is served no more, microseconds since 1970; None: it stays.
    changed_us: When it was last written whole by a live change; 0: it was imported.
    placed_us: Place in time of its import; 0: changed since, or not placed.
    patches: Attributes that were set or removed since, as JSON: {name: [time in us, value]}.
    """

    version: int = 0
    expires_us: int | None = None
    changed_us: int = 0
    import_time_us: int = 0
    patches: str = ""


class PreparedDocument(NamedTuple):
    """A checked document that goes into a snapshot.

    spans: Where it is cut. vectors: (chunks, d) float32; None: to be embedded.
    """

    location: SourceLocation
    item: Item
    spans: Sequence[Span]
    vectors: NDArray[np.float32] | None = None
    version: DocumentVersion = DocumentVersion()


@dataclass(slots=True, kw_only=True)
class SourceCount:
    """One thing that was read, as it goes into the manifest.

    modified_us: When it was last modified, microseconds since 1970; 0: nobody knows.
    """

    uri: str
    sha256: str = ""
    documents: int = 0
    bad_rows: int = 0
    modified_us: int = 0

    def import_time_us(self, now_us: int) -> int:
        """Returns its place in time: when it was modified; a file from the future would win over
        changes that are yet to be made.
        """
        return min(self.modified_us or now_us, now_us)

    def message(self, import_time_us: int) -> snapshot_pb2.Source:
        """Returns it as the manifest has it, with its place in time."""
        message = snapshot_pb2.Source(
            uri=self.uri, sha256=self.sha256, documents=self.documents, bad_rows=self.bad_rows
        )
        message.import_time.FromMicroseconds(import_time_us)
        return message
