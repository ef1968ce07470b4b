"""Items from the rows of a table: pandas, polars, Arrow and what else narwhals reads."""

from __future__ import annotations

import decimal
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from nearline import contract as c
from nearline.clients import argument_values as values
from nearline.clients.argument_values import Refused
from nearline.clients.own_writes import merge_watermarks
from nearline.errors import InvalidRequest, Unsupported
from nearline.items.attributes import flatten
from nearline.retry import retry_while_unavailable
from nearline.times import in_utc

# A batch has at most so many rows, and unless it is one row, so many characters.
_BATCH_ROWS: Final = 256
_BATCH_CHARACTERS: Final = 1 << 20
_SHOWN_COLUMNS: Final = 20
# A batch of long texts may need embedding by few cores.
_BATCH_TIMEOUT_S: Final = 600.0
_MAX_REJECTIONS: Final = 1_000


class Batch(NamedTuple):
    """Items of successive rows. first: Number of the first row, from 0."""

    first: int
    items: Sequence[c.Item]


class FrameRows:
    """The rows of a table as items; columns are read in slices.

    Args:
        frame: The table.
        id: Column of ids.
        text, title, vector: Columns. None takes those of that name if there are any.
        attributes: Columns that become attributes. None takes all others.
    Raises: Unsupported: narwhals is not installed. InvalidRequest: not a table, or there is no such
        column.
    """

    def __init__(
        self,
        frame: Any,
        *,
        id: str,
        text: str | None,
        title: str | None,
        vector: str | None,
        attributes: Sequence[str] | None,
    ) -> None:
        self._frame = _opened(frame)
        self._columns: list[str] = list(self._frame.columns)
        self._id = self._column(id, "id")
        given = {"title": title, "text": text, "vector": vector}
        self._parts = {
            part: self._column(part if name is None else name, part)
            for part, name in given.items()
            if name is not None or part in self._columns
        }
        if "text" not in self._parts and "vector" not in self._parts:
            self._column("text" if text is None else text, "text")
        used = {self._id, *self._parts.values()}
        self._attributes = (
            [one for one in self._columns if one not in used]
            if attributes is None
            else [self._column(one, f"attributes[{at}]") for at, one in enumerate(attributes)]
        )

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._frame)

    def batches(self) -> Iterator[Batch]:
        """Yields all rows in order.

        Raises: InvalidRequest: a value cannot be stored; names the row, from 0, and its column.
        """
        for first in range(0, len(self), _BATCH_ROWS):
            items: list[c.Item] = []
            characters, start = 0, first
            for row, item in enumerate(self._items(first), first):
                size = len(item.text) + len(item.title)
                if items and characters + size > _BATCH_CHARACTERS:
                    yield Batch(start, items)
                    items, characters, start = [], 0, row
                items.append(item)
                characters += size
            yield Batch(start, items)

    def _items(self, first: int) -> Iterator[c.Item]:
        part = self._frame[first : first + _BATCH_ROWS]
        names = dict.fromkeys((self._id, *self._parts.values(), *self._attributes))
        cells = {name: _cells(part.get_column(name)) for name in names}
        for at in range(len(part)):
            yield self._item(first + at, {name: cells[name][at] for name in names})

    def _item(self, row: int, cells: dict[str, Any]) -> c.Item:
        column = self._id
        try:
            fields: dict[str, Any] = {"id": values.to_id(cells[column])}
            for part, column in self._parts.items():
                if cells[column] is not None:
                    convert = values.to_vector if part == "vector" else values.to_text
                    fields[part] = convert(cells[column])
            attributes: dict[str, c.AttributeValue] = {}
            for column in self._attributes:
                if cells[column] is not None:
                    for name, value in flatten(column, cells[column]):
                        attributes[name] = values.to_attribute(_python_value(value))
        except Refused as error:
            raise InvalidRequest(
                f"row {row}, column {column!r}{error.path} {error.problem}",
                field=f"frame[{row}].{column}",
            ) from None
        return c.Item(attributes=attributes, **fields)

    def _column(self, name: str, argument: str) -> str:
        if name in self._columns:
            return name
        shown = ", ".join(map(str, self._columns[:_SHOWN_COLUMNS]))
        raise InvalidRequest(
            f"{argument} is {name!r}, and the table has no such column; its columns are {shown}. "
            f"Name the column, such as {argument.partition('[')[0]}=…; for the index of pandas, "
            "use reset_index()",
            field=argument,
        )


class Tally:
    """Outcomes of the batches so far, and the first 1,000 rejections."""

    def __init__(self) -> None:
        self._counts: Counter[c.WriteOutcome] = Counter()
        self._rejections: list[c.WriteResult] = []
        self._watermark = b""

    def add(self, reply: c.WriteReply) -> None:
        """Adds those of a batch."""
        self._counts.update(one.outcome for one in reply.results)
        rejected = [one for one in reply.results if one.outcome is c.WriteOutcome.REJECTED]
        self._rejections += rejected[: _MAX_REJECTIONS - len(self._rejections)]
        if reply.watermark:
            self._watermark = merge_watermarks(reply.watermark, self._watermark)

    def reply(self) -> c.BulkWriteReply:
        """Returns all outcomes."""
        return c.BulkWriteReply(
            watermark=self._watermark, counts=dict(self._counts), rejections=self._rejections
        )


async def upsert_batch(
    upsert: Callable[..., Awaitable[c.WriteReply]],
    items: Sequence[c.Item],
    *,
    only_attributes: bool = False,
    collection: str | None = None,
) -> c.WriteReply:
    """Adds or replaces 1..1024 items once; waits while the service is overloaded or restarts.

    upsert: `AsyncClient.upsert` of a client.

    Raises: See `ItemWriter.upsert_items`, and `retry_while_unavailable`.
    """
    write = partial(
        upsert,
        items,
        only_attributes=only_attributes,
        idempotency_key=secrets.token_hex(16),
        collection=collection,
        timeout_s=_BATCH_TIMEOUT_S,
    )
    return await retry_while_unavailable(write)


def _opened(frame: Any) -> Any:
    try:
        import narwhals
    except ImportError as error:
        raise Unsupported(
            "upsert_frame needs narwhals, which is not installed; install it: "
            "pip install 'nearline[frames]'"
        ) from error
    try:
        return narwhals.from_native(frame, eager_only=True)
    except TypeError as error:
        raise InvalidRequest(
            f"frame is of type {type(frame).__name__}; use a table of pandas, polars or Arrow, and "
            "a lazy one after collect()",
            field="frame",
        ) from error


def _cells(column: Any) -> list[Any]:
    """Returns the values of a column; None for those that are missing, such as NaN in pandas."""
    found = column.to_list()
    if column.is_null().any():
        missing = column.is_null().to_list()
        return [None if gone else one for one, gone in zip(found, missing, strict=True)]
    return list(found)


def _python_value(value: Any) -> Any:
    """Returns a decimal as a float and a day as its first moment in UTC, as builds read them."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return in_utc(value)
    return value
