"""Changes of items: as written, as logged, and their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, WriteOutcome
from nearline.items.documents import chunk_texts, text_to_embed
from nearline.items.sizes import attributes_bytes, text_bytes
from nearline.store.snapshot import PARTITIONS

# Replaces the fingerprint of vectors that the user provided.
OWN_VECTORS = ""
# Bytes that a change takes beyond its content: keys, the version of its item, the entry.
_ENTRY_BYTES = 256
_NO_BOUNDS = np.empty((0, 2), np.int64)


# Of the last entries of the 64 partitions; empty: unknown.
Nonces: TypeAlias = tuple[bytes, ...]
UNKNOWN_NONCES: Nonces = (b"",) * PARTITIONS


class ChangeKind(Enum):
    """Kinds of change; see Change.Kind in change.proto."""

    UPSERT = "upsert"
    DELETE = "delete"
    ATTRIBUTES = "attributes"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Change:
    """One change of one item.

    attributes: For ATTRIBUTES, the attributes to set; None removes one.
    bounds: (chunks, 2) int64, start and end of each chunk in code points of `text`.
    vectors: (chunks, d) float32 by model fingerprint, "" for vectors that the user provided; as
        stored by the collection (unit length if its metric is cosine).
    expires: Aware expiry time of the item.
    """

    document_id: str
    kind: ChangeKind
    title: str = ""
    text: str = ""
    attributes: Attributes = field(default_factory=dict)
    bounds: NDArray[np.int64] = field(default_factory=lambda: _NO_BOUNDS)
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    expires: datetime | None = None

    @property
    def texts(self) -> list[str]:
        """The text of each chunk as embedded by a model."""
        chunks = chunk_texts(self.text, self.bounds.tolist())
        return [text_to_embed(self.title, chunk) for chunk in chunks]


class ChangeEntry(NamedTuple):
    """A change in the log.

    position: Number within its partition, from 1 without gaps; also the new version of the item.
    time_us: When it was appended, in microseconds since 1970 by the log's clock.
    nonce, before: What identifies this entry and the one before it, see `EntryChain`; empty if
        unknown.
    """

    partition: int
    position: int
    time_us: int
    change: Change
    nonce: bytes = b""
    before: bytes = b""


class ChangeWrite(NamedTuple):
    """A change to append.

    if_version: Append only if the item has this version; None appends unconditionally.
    base_version: Version of the item in the served snapshots, in case the log has been trimmed;
        None if they do not contain the item.
    base_position: Position in the item's partition up to which these snapshots contain the log. For
        this item, the snapshots override changes up to that position, because an import may have
        followed those changes.
    as_of_us: Effective time of the change in microseconds since 1970 by the log's clock. The change
        is appended only if the log has neither a later change of the item nor this very change;
        None means now.
    of_owner: Whether the server added `if_version`, so that the item is still its caller's.
    """

    change: Change
    if_version: int | None = None
    base_version: int | None = None
    base_position: int = 0
    as_of_us: int | None = None
    of_owner: bool = False


class ChangeResult(NamedTuple):
    """The result of a write.

    version: Position of the change; for a CONFLICT the current version of the item; otherwise 0.
    """

    outcome: WriteOutcome
    version: int
    reason: str = ""
    message: str = ""


def added_bytes(writes: Iterable[ChangeWrite]) -> int:
    """Returns about how many bytes changes add wherever they are kept; deletes count as none."""
    return sum(
        _ENTRY_BYTES
        + text_bytes(change.document_id)
        + text_bytes(change.title)
        + text_bytes(change.text)
        + attributes_bytes(change.attributes)
        + change.bounds.nbytes
        + sum(vectors.nbytes for vectors in change.vectors.values())
        for change, *_ in writes
        if change.kind is not ChangeKind.DELETE
    )
