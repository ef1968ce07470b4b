"""What searches of Milvus give, whichever client asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Most rows of one answer, and most rows that one search may ask for.
MAX_ROWS = 16_384


class MilvusHit(NamedTuple):
    """A row that a search found.

    key: Primary key. score: Larger is better. fields: Those asked for.
    """

    key: str
    score: float
    fields: Mapping[str, Any]
