"""Bodies of imports: an interaction per line of JSON or CSV, put together in batches."""

from __future__ import annotations

import csv
import math
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

from starlette.requests import Request

from gateway.body import parse_json, read_lines
from gateway.conversion import convert
from nearline.errors import InvalidRequest
from nearline.times import in_utc, to_us
from nearline.v1 import retrieval_pb2

CSV: Final = "text/csv"
REQUIRED: Final = ("user_id", "item_id", "time")
_FIELDS: Final = (*REQUIRED, "kind", "weight")
# Rows and bytes of a batch; a service takes 10,000 rows.
_ROWS: Final = 10_000
_BYTES: Final = 2 << 20
# A number is in seconds below the first of these, in milliseconds below the second.
_SECONDS_BELOW, _MILLISECONDS_BELOW = 1e11, 1e14

_Line: TypeAlias = tuple[int, bytes]
# Returns the values of a line by field.
_Parse: TypeAlias = Callable[[bytes], dict[str, Any]]


async def read_interactions(
    request: Request, limit: int
) -> AsyncIterator[retrieval_pb2.InteractionBatch]:
    """Yields batches of the interactions in a body; of an empty one, an empty batch.

    Args:
        request: The request. Its content type is text/csv, with a header, or that of JSON lines.
        limit: Most bytes of a line.
    Raises: InvalidRequest: a line is not an interaction; names it.
    """
    parse: _Parse = parse_json
    header = request.headers.get("content-type", "").partition(";")[0].strip() == CSV
    waiting: list[_Line] = []
    size, sent = 0, False
    async for number, line in read_lines(request, limit):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
        if header:
            parse, header = _csv_parser(line), False
            continue
        waiting.append((number, line))
        size += len(line)
        if len(waiting) == _ROWS or size >= _BYTES:
            yield await convert(size, partial(_batch, waiting, parse))
            waiting, size, sent = [], 0, True
    if waiting or not sent:
        yield await convert(size, partial(_batch, waiting, parse))


def _batch(lines: Sequence[_Line], parse: _Parse) -> retrieval_pb2.InteractionBatch:
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    kinds: list[str] = []
    weights: list[float] = []
    for number, line in lines:
        try:
            row = parse(line)
            _check(row)
            users.append(row["user_id"])
            items.append(row["item_id"])
            times.append(_time_us(row["time"]))
            kinds.append(row.get("kind") or "")
            weights.append(float(row.get("weight") or 0))
        except InvalidRequest as error:
            raise error.with_message(f"line {number}: {error.message}") from None
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRequest(
                f"line {number}: {error}; send the time in ISO 8601 or in seconds since 1970, and "
                "the weight as a number",
                field="body",
            ) from None
    return retrieval_pb2.InteractionBatch(
        user_ids=users, item_ids=items, times_us=times, kinds=kinds, weights=weights
    )


def _check(row: Any) -> None:
    if not isinstance(row, dict):
        raise InvalidRequest("it is not an object; send an interaction per line", field="body")
    for name in REQUIRED:
        if row.get(name) in (None, ""):
            raise InvalidRequest(f"{name} is missing; every interaction needs it", field=name)
    if not row.keys() <= set(_FIELDS):
        other = next(name for name in row if name not in _FIELDS)
        raise InvalidRequest(
            f"there is no field {str(other)[:60]!r}; use {', '.join(_FIELDS)}",
            field="body",
        )
    for name in ("user_id", "item_id", "kind"):
        if not isinstance(row.get(name), str | None):
            raise InvalidRequest(f"{name} is not a string; put it in quotes", field=name)
    if isinstance(row.get("weight"), bool | list | dict):
        raise InvalidRequest("weight is not a number; send one, or leave it out", field="weight")


def _time_us(value: Any) -> int:
    """Returns microseconds since 1970 of a text in ISO 8601, UTC without a zone, or a number."""
    if isinstance(value, bool):
        raise ValueError(f"the time is {value!r}")
    try:
        number = float(value)
    except ValueError:
        return to_us(in_utc(datetime.fromisoformat(value)))
    size = abs(number)
    if not math.isfinite(number) or size >= 1e18:
        raise ValueError(f"the time is {value!r}")
    scale = 1e6 if size < _SECONDS_BELOW else 1e3 if size < _MILLISECONDS_BELOW else 1.0
    return round(number * scale)


def _csv_parser(header: bytes) -> _Parse:
    names = _cells(header)
    missing = [name for name in REQUIRED if name not in names]
    other = [name for name in names if name not in _FIELDS]
    if missing or other or len(set(names)) < len(names):
        raise InvalidRequest(
            f"line 1 has the columns {', '.join(names)[:200]}; use {', '.join(REQUIRED)}, and "
            "optionally kind and weight, each once",
            field="body",
        )

    def parse(line: bytes) -> dict[str, Any]:
        cells = _cells(line)
        if len(cells) != len(names):
            raise InvalidRequest(
                f"it has {len(cells)} cells, and line 1 has {len(names)}", field="body"
            )
        return dict(zip(names, cells, strict=True))

    return parse


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode().rstrip("\r")], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"it is not a line of CSV in UTF-8: {error}", field="body") from None
