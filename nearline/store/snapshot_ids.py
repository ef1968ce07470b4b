"""Ids of snapshots: 20261125T004218Z-1f3a9c, which sort by time."""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from nearline.errors import InvalidRequest, NearlineError, NotFound

_SNAPSHOT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")


def new_snapshot_id() -> str:
    """Returns a new id: 20261125T004218Z-1f3a9c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def is_snapshot_id(name: str) -> bool:
    """Returns whether this can be the id of a snapshot."""
    return _SNAPSHOT_ID.fullmatch(name) is not None


def check_snapshot_id(name: str, field: str = "snapshot_id") -> None:
    """Raises InvalidRequest, naming the field, unless this can be the id of a snapshot."""
    if not is_snapshot_id(name):
        raise InvalidRequest(
            f"{name!r} is not a snapshot id; `nearline snapshots list` lists them", field=field
        )


def unknown_snapshot(name: str, collection: str, known: Sequence[str], url: str) -> NearlineError:
    """Returns the error for a snapshot that does not exist, with the nearest that does.

    Args:
        name: The id, as somebody wrote it.
        collection: Name of the collection.
        known: Ids of its snapshots.
        url: The store.
    """
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    remedy = f"{meant}`nearline snapshots list --store {url}` lists all snapshots"
    if not is_snapshot_id(name):
        return InvalidRequest(f"{name!r} is not a snapshot id; {remedy}", field="snapshot_id")
    return NotFound(f"collection {collection!r} has no snapshot {name}; {remedy}")
