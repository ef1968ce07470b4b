"""Validates the rows of an import a column at a time, and stores them in parts."""

from __future__ import annotations

import re
import time
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearline.access.tenant_ids import name_of
from nearline.contract import (
    DEFAULT_KIND,
    IMPORT_PART_ROWS,
    MAX_ID_BYTES,
    MAX_KIND_BYTES,
    ImportReply,
    InteractionColumns,
)
from nearline.errors import AlreadyExists, InvalidRequest
from nearline.times import from_us
from nearline.wire.limits import IMPORT_ID, IMPORT_ROWS, check_count
from retrieval.users.imports import ImportedInteractions, ImportPart
from retrieval.users.validation import LEAST_WEIGHT, MAX_AHEAD_US, MOST_WEIGHT

# weight: 0 is the weight of the kind.
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "item": pa.string(),
        "time_us": pa.int64(),
        "kind": pa.string(),
        "weight": pa.float32(),
    }
)
_MAX_IMPORTS: Final = 1_000
_MAX_PARTS: Final = 10_000
# That of a tenant is a digest, see `stored_key`.
_IMPORT_ID = re.compile(rf"{IMPORT_ID.pattern}|tenant\.[0-9a-f]{{64}}")
_OPTIONAL = ("kinds", "weights")
_Bools = NDArray[np.bool_]


class Importer:
    """Stores the rows of one stream of an import; every method blocks.

    Args:
        imported: The imported interactions of the collection.
        import_id: Name of the import.
        first_row: Rows of the import before those of the stream.
    Raises: InvalidRequest: the name or the first row is not allowed. StoreError.
    """

    def __init__(self, imported: ImportedInteractions, import_id: str, first_row: int) -> None:
        if not _IMPORT_ID.fullmatch(import_id):
            raise InvalidRequest(
                f"import_id {import_id!r} is not allowed; name the import, for example after its "
                "file: 1..64 of a-z 0-9 _ -, starting with a letter or digit",
                field="import_id",
            )
        self._imported = imported
        self._import_id = import_id
        self._parts = imported.parts(import_id)
        if not self._parts and len(imported.names()) >= _MAX_IMPORTS:
            raise InvalidRequest(
                f"the collection has {_MAX_IMPORTS} imports, the most; import larger files, or "
                f"remove the folders of old imports from the store ({import_id!r} is new)",
                field="import_id",
            )
        stored = self._stored_rows()
        if first_row % IMPORT_PART_ROWS or first_row > stored:
            raise InvalidRequest(
                f"first_row is {first_row}, and {stored} rows of import {import_id!r} are stored; "
                f"begin at a multiple of {IMPORT_PART_ROWS} up to that",
                field="first_row",
            )
        # Rows before those that wait for their part to be full.
        self._row = first_row
        self._waiting: list[Any] = []
        self._recorded = self._duplicates = 0

    def add(self, columns: InteractionColumns) -> None:
        """Adds rows; stores the parts that they fill.

        Raises: InvalidRequest: a row is invalid; names its number in the import, from 1.
            AlreadyExists: the import has other rows at this place. StoreError.
        """
        waiting = sum(table.num_rows for table in self._waiting)
        rows = _table(columns, self._row + waiting)
        while waiting + rows.num_rows >= IMPORT_PART_ROWS:
            room = IMPORT_PART_ROWS - waiting
            self._waiting.append(rows.slice(0, room))
            self._store_part()
            rows, waiting = rows.slice(room), 0
        if rows.num_rows:
            self._waiting.append(rows)

    def finish(self) -> ImportReply:
        """Stores the last part. Raises: As `add` does."""
        if self._waiting:
            self._store_part()
        return ImportReply(self._stored_rows(), self._recorded, self._duplicates)

    def _stored_rows(self) -> int:
        rows = number = 0
        while number in self._parts:
            rows += self._parts[number].rows
            number += 1
        return rows

    def _store_part(self) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks()
        number = self._row // IMPORT_PART_ROWS
        known = self._parts.get(number)
        if number >= _MAX_PARTS:
            raise InvalidRequest(
                f"an import has at most {_MAX_PARTS * IMPORT_PART_ROWS:,} rows; give the others "
                "another import_id"
            )
        if known is not None and not self._has(known, table):
            raise self._other_rows(number)
        if known is None:
            try:
                self._parts[number] = self._imported.create(self._import_id, number, table)
            except AlreadyExists as error:
                raise self._other_rows(number) from error
            self._recorded += table.num_rows
        else:
            self._duplicates += table.num_rows
        self._row += table.num_rows
        self._waiting.clear()

    def _has(self, part: ImportPart, table: Any) -> bool:
        return part.rows == table.num_rows and bool(self._imported.read(part).equals(table))

    def _other_rows(self, number: int) -> AlreadyExists:
        return AlreadyExists(
            f"import {self._import_id!r} has other rows, or fewer, from row "
            f"{number * IMPORT_PART_ROWS + 1:,} on; give them, or a file that has grown, another "
            "import_id (the same user, item and second of two imports count once)"
        )


def _table(columns: InteractionColumns, first: int) -> Any:
    """Returns valid rows as a table of `SCHEMA`.

    first: Rows of the import before these.
    """
    count = len(columns.user_ids)
    for name, column in columns._asdict().items():
        if len(column) != count and not (name in _OPTIONAL and not len(column)):
            raise InvalidRequest(
                f"user_ids has {count} values and {name} has {len(column)}; send a value per row "
                "in each column",
                field=name,
            )
    check_count(count, "user_ids", IMPORT_ROWS, "send several batches")
    users = _ids(columns.user_ids, "user_ids", first)
    items = _ids(columns.item_ids, "item_ids", first)
    times = np.fromiter(columns.times_us, np.int64, count)
    latest = time.time_ns() // 1_000 + MAX_AHEAD_US
    _check(
        (times < 0) | (times > latest),
        first,
        "times_us",
        f"send a time from 1970 to an hour from now, {from_us(latest):%F %T} UTC, in microseconds",
    )
    kinds = pa.repeat(DEFAULT_KIND, count).cast(pa.string())
    if len(columns.kinds):
        given = _text(columns.kinds, "kinds")
        kinds = pc.if_else(pc.equal(given, ""), DEFAULT_KIND, given)
        too_long = pc.binary_length(kinds).to_numpy() > MAX_KIND_BYTES
        _check(too_long, first, "kinds", f"a kind has at most {MAX_KIND_BYTES} bytes")
    weights = np.zeros(count, np.float32)
    if len(columns.weights):
        weights = np.fromiter(columns.weights, np.float32, count)
        allowed = (weights == 0) | ((weights >= LEAST_WEIGHT) & (weights <= MOST_WEIGHT))
        remedy = f"{LEAST_WEIGHT}..{MOST_WEIGHT} are allowed, or 0 for the weight of the kind"
        _check(~allowed, first, "weights", remedy)
    return pa.table([users, items, times, kinds, weights], schema=SCHEMA)


def _ids(ids: Any, field: str, first: int) -> Any:
    column = _text(ids, field)
    sizes = pc.binary_length(column).to_numpy()
    bad = sizes == 0
    for row in np.flatnonzero(sizes > MAX_ID_BYTES):
        # The name of a tenant does not count.
        bad[row] = field != "user_ids" or len(name_of(ids[row]).encode()) > MAX_ID_BYTES
    _check(bad, first, field, f"an id has 1..{MAX_ID_BYTES} bytes")
    return column


def _text(values: Any, field: str) -> Any:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} has half a surrogate pair and is not valid Unicode; send whole characters",
            field=field,
        ) from error


def _check(bad: _Bools, first: int, field: str, remedy: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise InvalidRequest(
            f"row {first + row + 1:,} of the import has an invalid value in {field}: {remedy}",
            field=f"{field}[{row}]",
        )
