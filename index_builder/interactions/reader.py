"""Reads interactions from CSV, TSV, JSON lines and Parquet, in batches of rows and whole columns.

Ids are text: as written in CSV and TSV, decimal for whole numbers in JSON and Parquet. The weight
of a row is the weight of its kind times its value; either is 1 without such a column.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.json as json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index_builder.interactions.records import InteractionReport, Interactions
from nearline.contract import MAX_ID_BYTES, MAX_KIND_BYTES
from nearline.errors import InvalidRequest
from retrieval.users.importer import SCHEMA
from retrieval.users.validation import LEAST_WEIGHT, MAX_AHEAD_US, MOST_WEIGHT

ENDINGS = (".csv", ".csv.gz", ".tsv", ".jsonl", ".ndjson", ".parquet")

# Reasons why a row is left out; each row is counted once, under the first that applies.
CELLS = "more or fewer cells than the header"
NO_USER = "no user"
NO_ITEM = "no item"
NO_TIME = "no readable time"
NO_KIND = "a kind that is not named"
NO_VALUE = "no readable value"
NO_WEIGHT = "a weight that is not above 0"
TOO_LONG = "an id or a kind that is too long"
NO_PAST = "a time before 1970 or in the future"

# Input in memory at a time, besides the resulting columns. No line may be longer than a block.
_BLOCK_BYTES = 16 << 20
_BATCH_ROWS = 1 << 18
# Arrow reads many blocks ahead of a slow import.
_IMPORT_BLOCK_BYTES = 4 << 20

# The years 1 to 9999, as in `datetime`; the end is exclusive.
_FIRST_US = -62_135_596_800_000_000
_END_US = 253_402_300_800_000_000
_SECONDS_BELOW = 1e11
_MILLISECONDS_BELOW = 1e14

# Arrow rejects a whole column for one bad cell; text that matches these always casts.
_NUMBER = r"^-?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,2})?$"
_BY_FOUR = "(0[48]|[2468][048]|[13579][26])"
_DATE = (
    "([0-9]{4}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    "|[0-9]{4}-(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|[0-9]{4}-02-(0[1-9]|1[0-9]|2[0-8])"
    f"|([0-9]{{2}}{_BY_FOUR}|{_BY_FOUR}00)-02-29)"
)
_CLOCK = r"[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_NAIVE = f"^{_DATE}({_CLOCK})?$"
_ZONED = f"^{_DATE}{_CLOCK}(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)$"
_FINER_THAN_US = r"(\.[0-9]{6})[0-9]+"

_Times = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
# Which rows are left out, by reason.
_Reasons = dict[str, _Bools]


class ColumnNames(NamedTuple):
    """Names of the columns; empty if there is no such column."""

    user: str
    item: str
    time: str
    kind: str = ""
    value: str = ""


class _Part(NamedTuple):
    """The kept rows of a batch. user, item: Arrow dictionaries, in order of their first row."""

    user: Any
    item: Any
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]


def read_interactions(
    path: Path, columns: ColumnNames, kinds: Mapping[str, float] | None = None
) -> tuple[Interactions, InteractionReport]:
    """Reads a file whose name ends in one of `ENDINGS`.

    A time is ISO 8601 text (a date, or a date and a time of day; UTC unless it names a zone; digits
    beyond microseconds are truncated), a Parquet date or timestamp, or a number since 1970: seconds
    below 1e11, milliseconds below 1e14, otherwise microseconds, regardless of the sign. Its year is
    1 to 9999. A row is left out if it has more or fewer cells than the header, lacks a user, an
    item or a valid time, has a kind without a weight or a value that is no number, or if its weight
    is not above 0 and finite as float32.

    Args:
        columns: Names of the columns.
        kinds: Weight by kind, as written in the file; rows of other kinds are left out. If None or
            empty, every row has weight 1.
    Raises: InvalidRequest: the file cannot be read, lacks a column, has one of a wrong type or no
        usable row, or kinds are given without a column that holds them.
    """
    kinds = _check_kinds(kinds or {}, columns)
    left_out: Counter[str] = Counter()
    rows = 0
    parts: list[_Part] = []
    with _read_errors(path):
        for batch in _batches(path, columns, left_out):
            rows += batch.num_rows
            parts.append(_part(batch, columns, kinds, left_out))
        rows += left_out[CELLS]
        report = InteractionReport(rows, rows - left_out.total(), dict(+left_out))
        if not report.kept:
            raise _no_rows_error(path, report)
        users, user = numbered([part.user for part in parts])
        items, item = numbered([part.item for part in parts])
    time_us = np.concatenate([part.time_us for part in parts])
    weight = np.concatenate([part.weight for part in parts])
    return Interactions(users, items, user, item, time_us, weight), report


def read_importable(path: Path, columns: ColumnNames, left_out: Counter[str]) -> Iterator[Any]:
    """Yields the rows of a file that can be imported, as Arrow tables of `importer.SCHEMA`.

    Unlike `read_interactions`, it keeps kinds as they are, and the weight of a row is its value.

    Args:
        path: See `read_interactions`.
        columns: Names of the columns.
        left_out: Counts the other rows by reason.
    Raises: InvalidRequest: See `read_interactions`.
    """
    _check_kinds({}, columns)
    latest_us = time.time_ns() // 1_000 + MAX_AHEAD_US
    with _read_errors(path):
        for batch in _batches(path, columns, left_out, _IMPORT_BLOCK_BYTES):
            user, item = _text(batch.column(columns.user)), _text(batch.column(columns.item))
            kind = pa.repeat("", batch.num_rows).cast(pa.string())
            if columns.kind:
                kind = _text(batch.column(columns.kind))
            time_us, valid = _times(_decode(batch.column(columns.time)))
            reasons = {
                NO_USER: _bools(pc.equal(user, "")),
                NO_ITEM: _bools(pc.equal(item, "")),
                TOO_LONG: _too_long(user, item, kind),
                NO_TIME: ~valid,
                NO_PAST: (time_us < 0) | (time_us > latest_us),
            }
            weight = np.zeros(batch.num_rows, np.float32)
            if columns.value:
                value = _numbers(_decode(batch.column(columns.value)))
                reasons[NO_VALUE] = np.isnan(value)
                reasons[NO_WEIGHT] = ~((value >= LEAST_WEIGHT) & (value <= MOST_WEIGHT))
                with np.errstate(all="ignore"):
                    weight = value.astype(np.float32)
            keep = _keep(reasons, batch.num_rows, left_out)
            table = pa.table([user, item, time_us, kind, weight], schema=SCHEMA)
            yield table.filter(pa.array(keep))


def _too_long(user: Any, item: Any, kind: Any) -> _Bools:
    sizes = [pc.binary_length(one).to_numpy() for one in (user, item, kind)]
    ids = np.maximum(sizes[0], sizes[1]) > MAX_ID_BYTES
    return np.asarray(ids | (sizes[2] > MAX_KIND_BYTES))


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Converts errors of reading a file inside the block to InvalidRequest."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{path} cannot be read: {error}; give a CSV, TSV, JSON lines or Parquet file in UTF-8",
            field="interactions",
        ) from error


def _check_kinds(kinds: Mapping[str, float], columns: ColumnNames) -> Mapping[str, float]:
    if not all(columns[:3]):
        raise InvalidRequest(
            "name the user, item and time columns; all three are required", field="columns"
        )
    if kinds and not columns.kind:
        raise InvalidRequest(
            "weights of kinds are given, but no kind column; name the column, or omit the weights",
            field="kinds",
        )
    bad = [kind for kind, weight in kinds.items() if not math.isfinite(weight)]
    if bad:
        raise InvalidRequest(
            f"the weight of {', '.join(bad)} is not finite; use a number, 0 to leave a kind out",
            field="kinds",
        )
    return kinds


def _no_rows_error(path: Path, report: InteractionReport) -> InvalidRequest:
    reasons = "; ".join(f"{count} with {reason}" for reason, count in report.left_out.items())
    return InvalidRequest(
        f"none of the {report.rows} rows of {path} can be used{reasons and ': '}{reasons}; check "
        "the names of columns and kinds",
        field="interactions",
    )


def _batches(
    path: Path,
    columns: ColumnNames,
    left_out: Counter[str],
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[Any]:
    """Yields record batches with the named columns, and counts malformed lines."""
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise InvalidRequest(
            f"{path} has no known file type; its name must end in {', '.join(ENDINGS)}",
            field="interactions",
        )
    wanted = list(dict.fromkeys(filter(None, columns)))
    if name.endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, columns, path)
            yield from file.iter_batches(_BATCH_ROWS, columns=wanted)
        return
    if name.endswith((".jsonl", ".ndjson")):
        with json.open_json(path, json.ReadOptions(block_size=block_bytes)) as lines:
            _check_columns(lines.schema, columns, path)
            yield from lines
        return
    options = csv.ReadOptions(block_size=block_bytes)
    delimiter = "\t" if name.endswith(".tsv") else ","
    # Read the header first: Arrow's error for an unknown column does not list the known ones.
    with _open(path, options, delimiter, csv.ConvertOptions(check_utf8=False), Counter()) as first:
        _check_names(first.schema.names, wanted, path)
    text = csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
    )
    with _open(path, options, delimiter, text, left_out) as reader:
        yield from reader


def _open(path: Path, options: Any, delimiter: str, convert: Any, left_out: Counter[str]) -> Any:
    def leave_out(_: Any) -> str:
        left_out[CELLS] += 1
        return "skip"

    parse = csv.ParseOptions(
        delimiter=delimiter, newlines_in_values=True, invalid_row_handler=leave_out
    )
    return csv.open_csv(path, options, parse, convert)


def _check_names(names: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidRequest(
            f"{path} has no column {', '.join(missing)}; it has: {', '.join(names)}",
            field="columns",
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InvalidRequest(
            f"{path} has more than one column {', '.join(twice)}; rename all but one",
            field="columns",
        )


def _check_columns(schema: Any, columns: ColumnNames, path: Path) -> None:
    _check_names(schema.names, list(filter(None, columns)), path)
    for role, name in columns._asdict().items():
        if not name:
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (_is_text(kind) or any(test(kind) for test in _OTHER_TYPES[role])):
            raise InvalidRequest(
                f"column {name} of {path} has type {kind}, which cannot be a {role}; write it as "
                "text",
                field="columns",
            )


def _is_text(kind: Any) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
# Types of Parquet columns allowed besides text. A float is no id: 17850 and 17850.0 would be the
# same.
_OTHER_TYPES: Mapping[str, Sequence[Any]] = {
    "user": (pa.types.is_integer,),
    "item": (pa.types.is_integer,),
    "time": (*_NUMBERS, pa.types.is_timestamp, pa.types.is_date),
    "kind": (pa.types.is_integer,),
    "value": _NUMBERS,
}


def _part(
    batch: Any, columns: ColumnNames, kinds: Mapping[str, float], left_out: Counter[str]
) -> _Part:
    user, item = _text(batch.column(columns.user)), _text(batch.column(columns.item))
    time_us, valid = _times(_decode(batch.column(columns.time)))
    reasons = {NO_USER: _bools(pc.equal(user, "")), NO_ITEM: _bools(pc.equal(item, ""))}
    reasons[NO_TIME] = ~valid
    weight = _weights(batch, columns, kinds, reasons)
    keep = _keep(reasons, batch.num_rows, left_out)
    chosen = pa.array(keep)
    return _Part(
        pc.dictionary_encode(user.filter(chosen)),
        pc.dictionary_encode(item.filter(chosen)),
        time_us[keep],
        weight[keep],
    )


def _keep(reasons: _Reasons, rows: int, left_out: Counter[str]) -> _Bools:
    """Returns which rows are kept, and counts the others under their first reason."""
    keep = np.ones(rows, np.bool_)
    for reason, out in reasons.items():
        left_out[reason] += int(np.count_nonzero(keep & out))
        keep &= ~out
    return keep


def _weights(
    batch: Any, columns: ColumnNames, kinds: Mapping[str, float], reasons: _Reasons
) -> NDArray[np.float32]:
    """Returns the weights, and adds to the reasons."""
    weight = np.ones(batch.num_rows)
    if kinds:
        known = pc.index_in(_text(batch.column(columns.kind)), pa.array(list(kinds)))
        place = pc.fill_null(known, len(kinds)).to_numpy()
        weight = np.array([*kinds.values(), 0.0])[place]
        reasons[NO_KIND] = place == len(kinds)
    with np.errstate(all="ignore"):
        if columns.value:
            value = _numbers(_decode(batch.column(columns.value)))
            reasons[NO_VALUE] = np.isnan(value)
            weight = weight * value
        narrow = weight.astype(np.float32)
    reasons[NO_WEIGHT] = ~(np.isfinite(narrow) & (narrow > 0))
    return narrow


def _times(column: Any) -> tuple[_Times, _Bools]:
    """Returns times in microseconds, and which rows have a valid one."""
    if _is_text(column.type):
        return _times_of_text(pc.utf8_trim_whitespace(column))
    if pa.types.is_temporal(column.type):
        return _of_timestamps(pc.cast(column, pa.timestamp("us"), safe=False))
    return _of_numbers(_numbers(column))


def _times_of_text(text: Any) -> tuple[_Times, _Bools]:
    time_us, valid = _of_numbers(_numbers(text))
    if valid.all():
        return time_us, valid
    text = pc.replace_substring_regex(text, _FINER_THAN_US, r"\1")
    for pattern, kind in ((_NAIVE, pa.timestamp("us")), (_ZONED, pa.timestamp("us", "UTC"))):
        matching = pc.match_substring_regex(text, pattern)
        found_us, found = _of_timestamps(pc.cast(pc.if_else(matching, text, None), kind))
        time_us[found] = found_us[found]
        valid |= found
    return time_us, valid


def _of_timestamps(column: Any) -> tuple[_Times, _Bools]:
    time_us = pc.fill_null(pc.cast(column, pa.int64()), _END_US).to_numpy()
    return time_us, (time_us >= _FIRST_US) & (time_us < _END_US)


def _of_numbers(numbers: _Floats) -> tuple[_Times, _Bools]:
    size = np.abs(numbers)
    milliseconds = np.where(size < _MILLISECONDS_BELOW, 1e3, 1.0)
    time_us = np.rint(numbers * np.where(size < _SECONDS_BELOW, 1e6, milliseconds))
    valid = (time_us >= _FIRST_US) & (time_us < _END_US)
    return np.where(valid, time_us, 0).astype(np.int64), valid


def _numbers(column: Any) -> _Floats:
    """Returns numbers, parsed from text if necessary; NaN where there is none."""
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None)
    numbers = pc.cast(column, pa.float64(), safe=False)
    return pc.fill_null(numbers, math.nan).to_numpy()  # type: ignore[no-any-return]


def _text(column: Any) -> Any:
    """Returns text; empty where there is none."""
    return pc.fill_null(pc.cast(_decode(column), pa.string()), "")


def _decode(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _bools(column: Any) -> _Bools:
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def numbered(parts: Sequence[Any]) -> tuple[Sequence[str], NDArray[np.int32]]:
    """Returns the ids in order of their first row, and the number of each row's id."""
    # Unification appends the new values of each part, in the part's order.
    chunks = pa.chunked_array(parts).unify_dictionaries().chunks
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    return chunks[0].dictionary.to_pylist(), numbers
