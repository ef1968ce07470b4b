"""Changes of items: as asked for, as they stand in the log, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, WriteOutcome
from nearline.documents import text_to_embed

# Under this name, in the place of a fingerprint, stand vectors that a user brought.
OWN_VECTORS = ""
_NO_BOUNDS = np.empty((0, 2), np.int64)


class ChangeKind(Enum):
    """Kinds of change; see Change.Kind in change.proto."""

    UPSERT = "upsert"
    DELETE = "delete"
    ATTRIBUTES = "attributes"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Change:
    """One change of one item.

    attributes: Of ATTRIBUTES those to set, and None for those to remove.
    bounds: (chunks, 2) int64, code points of `text`: start and end of each chunk.
    vectors: (chunks, d) float32 by fingerprint of the model, by "" where the user brought them;
        as the collection keeps them (unit length where its metric is cosine).
    expires: Aware; after this time the item is served no more.
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
        """What a model reads of each chunk."""
        return [
            text_to_embed(self.title, self.text[start:end]) for start, end in self.bounds.tolist()
        ]


class ChangeEntry(NamedTuple):
    """A change in the log.

    position: Number within its partition, from 1 without gaps; the version that the item then has.
    time_us: When the log took it, microseconds since 1970 by the log's clock.
    """

    partition: int
    position: int
    time_us: int
    change: Change


class ChangeWrite(NamedTuple):
    """A change that is to be appended.

    if_version: Only if this is the item's version; None: whatever it is.
    base_version: Version of the item in the snapshots being served, where the log has forgotten it
        by now; None: they have no such item.
    base_position: How far these snapshots have the item's partition of the log. What they say of
        the item counts more than changes up to there: an import may have come after them.
    as_of_us: Place of the change in time, microseconds since 1970 by the log's clock: only if the
        item was not changed later, nor by this very change; None: now.
    """

    change: Change
    if_version: int | None = None
    base_version: int | None = None
    base_position: int = 0
    as_of_us: int | None = None


class ChangeResult(NamedTuple):
    """What became of a write.

    version: Number of the change; of a CONFLICT the version that the item has, else 0.
    """

    outcome: WriteOutcome
    version: int
    reason: str = ""
    message: str = ""
