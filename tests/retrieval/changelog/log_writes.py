"""Writes for tests, and change logs in a Redis."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from nearline.contract import AttributeValue
from nearline.store.snapshot import Store
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.changelog.registry import ChangeLogs


def upsert(
    document_id: str,
    text: str = "text",
    *,
    if_version: int | None = None,
    base_version: int | None = None,
    base_position: int = 0,
    as_of_us: int | None = None,
) -> ChangeWrite:
    change = Change(document_id=document_id, kind=ChangeKind.UPSERT, text=text)
    return ChangeWrite(change, if_version, base_version, base_position, as_of_us)


def delete(
    document_id: str,
    *,
    if_version: int | None = None,
    base_version: int | None = None,
    base_position: int = 0,
) -> ChangeWrite:
    change = Change(document_id=document_id, kind=ChangeKind.DELETE)
    return ChangeWrite(change, if_version, base_version, base_position)


def set_attribute(
    document_id: str, name: str, value: AttributeValue, *, base_version: int | None = None
) -> ChangeWrite:
    change = Change(document_id=document_id, kind=ChangeKind.ATTRIBUTES, attributes={name: value})
    return ChangeWrite(change, base_version=base_version)


@contextlib.asynccontextmanager
async def change_logs(store: Path, url: str, replicas: int | None = 0) -> AsyncIterator[ChangeLogs]:
    """Yields the change logs of a store for the length of the block."""
    logs = ChangeLogs(Store(store), url, who="a test", replicas=replicas)
    try:
        yield logs
    finally:
        await logs.close()
