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
    """The source of a document, and its line or row in a file, counted from 1; 0 elsewhere."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class SourceRow(NamedTuple):
    """A document as read, with its location."""

    location: SourceLocation
    item: Item


class DocumentVersion(NamedTuple):
    """The history of a document; all fields are empty without live changes.

    version: Number of the last live change; 0 if there was none since the import.
    expires_us: Time after which the document is no longer served, microseconds since 1970; None if
        it does not expire.
    changed_us: Time of the last live change that wrote the whole document; 0 if it was imported.
    import_time_us: Import time; 0 if the document was changed since, or the time is unknown.
    patches: Attributes set or removed since, as JSON: {name: [time in us, value]}.
    """

    version: int = 0
    expires_us: int | None = None
    changed_us: int = 0
    import_time_us: int = 0
    patches: str = ""


class PreparedDocument(NamedTuple):
    """A checked document, ready for a snapshot.

    spans: The chunks of the document. vectors: (chunks, d) float32; None if they are to be
    embedded.
    """

    location: SourceLocation
    item: Item
    spans: Sequence[Span]
    vectors: NDArray[np.float32] | None = None
    version: DocumentVersion = DocumentVersion()


@dataclass(slots=True, kw_only=True)
class SourceCount:
    """A source of documents, with its counts for the manifest.

    modified_us: Modification time, microseconds since 1970; 0 if unknown.
    """

    uri: str
    sha256: str = ""
    documents: int = 0
    bad_rows: int = 0
    modified_us: int = 0

    def import_time_us(self, now_us: int) -> int:
        """Returns the modification time, at most the present.

        A file with a modification time in the future would override changes that are yet to be
        made.
        """
        return min(self.modified_us or now_us, now_us)

    def message(self, import_time_us: int) -> snapshot_pb2.Source:
        """Returns the entry of the manifest."""
        message = snapshot_pb2.Source(
            uri=self.uri, sha256=self.sha256, documents=self.documents, bad_rows=self.bad_rows
        )
        message.import_time.FromMicroseconds(import_time_us)
        return message
