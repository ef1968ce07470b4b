"""What reads of a Milvus collection must know; the seam between reading it and changing it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class ReadContext:
    """What reads of a Milvus collection must know.

    Changed by whoever applies live changes, on the event loop.

    seen: Reads see at least what was written up to this timestamp of the server; 0: everything;
    None: nothing was written. expiring: Some document expires, so every expression asks for
    `expires > now`. single_valued: Attributes of which no document has a list. partition_by:
    Attribute that the collection is cut up by; empty: it is not.
    """

    seen: int | None = None
    expiring: bool = False
    single_valued: frozenset[str] = frozenset()
    partition_by: str = ""
