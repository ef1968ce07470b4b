"""Reads the items of a Milvus collection, by id or in id order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter, Item, PayloadField
from nearline.times import from_us
from retrieval.milvus.filters import any_of, quote
from retrieval.milvus.layout import MAX_ROWS, NEVER_EXPIRES, SEPARATOR, make_key, parse_key
from retrieval.milvus.reader import MilvusReader, in_batches
from retrieval.milvus.rows import parse_attributes
from retrieval.protocols.shard import ItemsRequest, ScanRequest

_Row = Mapping[str, Any]
_TEXT = ("start", "stop", "gap", "passage", "rest")
# A suffix; an id with it sorts after all chunks of the id and before any greater id.
_AFTER = chr(ord(SEPARATOR) + 1)
_FIRST_CHUNK = "chunk == 0"


class StoredRows:
    """Reads items; see `Shard.fetch` and `Shard.scan`.

    Args:
        reader: Reads the collection.
        unit_length: Whether vectors have unit length (metric cosine).
    """

    def __init__(self, reader: MilvusReader, *, unit_length: bool) -> None:
        self._reader = reader
        self._unit_length = unit_length

    async def fetch(self, request: ItemsRequest, deadline: float | None) -> list[Item | None]:
        """Returns items in the order of `ids`; None for those that do not exist or do not match."""
        ids, payload, chunks, filter, *_ = request
        if chunks:
            keys = [make_key(one, chunk) for one, chunk in zip(ids, chunks, strict=True)]
            fields = _fields(payload, ("passage",))
            rows = await self._rows("key", _storable(keys, 1), filter, fields, deadline)
            by_key = {
                row["key"]: self._item([row], payload, row.get("passage", "")) for row in rows
            }
            return [by_key.get(key) for key in keys]
        found = await self._documents(_storable(ids, 0), payload, filter, deadline)
        return [found.get(one) for one in ids]

    async def scan(self, request: ScanRequest, deadline: float | None) -> list[Item]:
        """Returns the first `limit` matching items after an id, in id order."""
        after_id, limit, filter, payload, _ = request
        items: list[Item] = []
        whole = _is_whole(payload)
        fields = [] if whole else _fields(payload, ())
        after = _before_separator(after_id)
        while len(items) < limit:
            page_size = min(limit - len(items), MAX_ROWS)
            parts = (_FIRST_CHUNK, f"key > {quote(after + _AFTER)}") if after else (_FIRST_CHUNK,)
            wanted = self._reader.matching(filter, *parts)
            rows = await self._reader.query(wanted, fields, page_size, deadline)
            ids = [parse_key(row["key"])[0] for row in rows]
            if whole:
                found = await self._documents(ids, payload, filter, deadline)
                # Some documents may have been deleted since then.
                items += [found[one] for one in ids if one in found]
            else:
                items += [self._item([row], payload, "") for row in rows]
            if len(rows) < page_size:
                break
            after = ids[-1]
        return items

    async def _documents(
        self,
        ids: Iterable[str],
        payload: frozenset[PayloadField],
        filter: Filter | None,
        deadline: float | None,
    ) -> dict[str, Item]:
        if not _is_whole(payload):
            keys = [make_key(one, 0) for one in ids]
            fields = _fields(payload, ())
            rows = await self._rows("key", keys, filter, fields, deadline)
            return {parse_key(row["key"])[0]: self._item([row], payload, "") for row in rows}
        fields = _fields(payload, _TEXT)
        rows = await self._rows("document", ids, filter, fields, deadline)
        grouped: dict[str, list[_Row]] = {}
        for row in rows:
            grouped.setdefault(parse_key(row["key"])[0], []).append(row)
        items = {}
        for one, chunks in grouped.items():
            # Just after a replacement, chunks of the previous document may be left. The greatest
            # version is not always the newest, because a new log counts from 1.
            if parse_key(chunks[0]["key"])[1] > 0:
                continue
            mine = [row for row in chunks if row["version"] == chunks[0]["version"]]
            text = join_text(mine) if PayloadField.TEXT in payload else ""
            items[one] = self._item(mine, payload, text)
        return items

    async def _rows(
        self,
        field: str,
        values: Iterable[str],
        filter: Filter | None,
        fields: Sequence[str],
        deadline: float | None,
    ) -> list[_Row]:
        """Returns the matching rows that have one of these values, in no particular order."""
        # Rejects an unsupported filter even without ids.
        self._reader.matching(filter)

        async def read(batch: Sequence[str]) -> list[_Row]:
            wanted = self._reader.matching(filter, any_of(field, batch))
            return [
                row async for page in self._reader.pages(wanted, fields, deadline) for row in page
            ]

        batches = in_batches(dict.fromkeys(values))
        return [row for rows in await asyncio.gather(*map(read, batches)) for row in rows]

    def _item(self, rows: Sequence[_Row], payload: frozenset[PayloadField], text: str) -> Item:
        """Builds an item from all rows of a document, or from one."""
        row = rows[0]
        expires = row["expires"]
        kinds = self._reader.kinds
        return Item(
            id=parse_key(row["key"])[0],
            title=row["title"] if PayloadField.TITLE in payload else "",
            text=text,
            attributes=parse_attributes(row["attributes"], kinds)
            if PayloadField.ATTRIBUTES in payload
            else {},
            vector=self._vector(rows) if PayloadField.VECTOR in payload else None,
            expires=None if expires == NEVER_EXPIRES else from_us(expires),
            version=row["version"],
        )

    def _vector(self, rows: Sequence[_Row]) -> NDArray[np.float32]:
        vectors = np.array([row["vector"] for row in rows], np.float32)
        mean: NDArray[np.float32] = vectors.mean(axis=0)
        norm = float(np.linalg.norm(mean))
        return mean / np.float32(norm) if self._unit_length and norm > 0 else mean


def join_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the text of a document from all of its rows, in order; see `layout`."""
    pieces: list[str] = []
    reached = 0
    for row in rows:
        start, stop = row["start"], row["stop"]
        pieces += (row["gap"], row["passage"][max(0, reached - start) :])
        reached = max(reached, stop)
    return "".join((*pieces, rows[-1]["rest"]))


def _is_whole(payload: frozenset[PayloadField]) -> bool:
    """Returns whether all chunks of a document are needed."""
    return PayloadField.TEXT in payload or PayloadField.VECTOR in payload


def _fields(payload: frozenset[PayloadField], text: Sequence[str]) -> list[str]:
    """Returns the fields to read; `text` names those that hold the text."""
    fields = ["version", "expires"]
    fields += ["title"] if PayloadField.TITLE in payload else []
    fields += ["attributes"] if PayloadField.ATTRIBUTES in payload else []
    fields += ["vector"] if PayloadField.VECTOR in payload else []
    return [*fields, *(text if PayloadField.TEXT in payload else ())]


def _storable(values: Iterable[str], separators: int) -> list[str]:
    """Omits the ids or keys that no row can have."""
    return [one for one in values if one.count(SEPARATOR) == separators and "\0" not in one]


def _before_separator(after_id: str) -> str:
    """Returns the prefix of an id before its first character that stored ids cannot have.

    The same stored ids follow both in id order.
    """
    for place, sign in enumerate(after_id):
        if sign <= SEPARATOR:
            return after_id[:place]
    return after_id
