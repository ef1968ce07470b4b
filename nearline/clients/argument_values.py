"""Single values of arguments: numbers, texts, ids, times, attributes, vectors and filters.

Each function returns the value as the records have it; a value that is right already is returned
as it is.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from reprlib import Repr
from typing import Any, Final

import numpy as np

from nearline import contract as c, filters as f
from nearline.errors import InvalidRequest
from nearline.filter_text import filter_from_json, parse_filter

_INT64: Final = range(-(1 << 63), 1 << 63)
# Of an integer that is shown, or is an id: an id has up to 512 characters.
_MAX_BITS: Final = 2_048


class _ShortRepr(Repr):
    """Writes values in few characters."""

    def repr_int(self, x: int, level: int) -> str:
        """Returns an integer; Python refuses to write one of thousands of digits."""
        bits = x.bit_length()
        return super().repr_int(x, level) if bits < _MAX_BITS else f"an integer of {bits:,} bits"


_REPR: Final = _ShortRepr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


class Refused(Exception):
    """A value that cannot be taken.

    Args:
        problem: What it is, and what is allowed.
        path: Its place within the argument, such as "[3].title".
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path


def refused(value: object, allowed: str, path: str = "") -> Refused:
    """Returns the error of a value. allowed: What to use instead."""
    shown = _REPR.repr(value)
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    typed = "" if value is None else f", {article} {kind}"
    return Refused(f"is {shown}{typed}; {allowed}", path)


def to_text(value: Any) -> str:
    """Returns a text."""
    if not isinstance(value, str):
        raise refused(value, "use a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refused(
                f"has half a surrogate pair, a lone surrogate at position {error.start}, which is "
                "not valid Unicode; decode the source with errors='replace'"
            ) from error
    return value if type(value) is str else str(value)


def to_id(value: Any) -> str:
    """Returns an id: a text, or an integer's digits."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        number = int(value)
        if number.bit_length() < _MAX_BITS:
            return str(number)
        raise refused(value, "use a text or a smaller integer")
    if not isinstance(value, str):
        raise refused(value, "use a text or an integer")
    return to_text(value)


def to_int(value: Any, allowed: range, shown: str) -> int:
    """Returns an integer. allowed: All that a message can hold. shown: The service's range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise refused(value, "use an integer, such as 10")
    number = value if type(value) is int else int(value)
    if number not in allowed:
        raise Refused(f"is {_REPR.repr(number)}; {shown} is allowed")
    return number


def to_float(value: Any) -> float:
    """Returns a finite number."""
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise refused(value, "use a number, such as 0.5")
        try:
            value = float(value)
        except OverflowError as error:
            raise refused(value, "use a number that fits 64 bits") from error
    if not math.isfinite(value):
        raise Refused(f"is {value}, not a finite number; use one, or leave it out")
    return value  # type: ignore[no-any-return]


def to_bool(value: Any) -> bool:
    """Returns True or False."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refused(value, "use True or False")


def to_bytes(value: Any) -> bytes:
    """Returns bytes."""
    if isinstance(value, bytes):
        return value
    raise refused(value, "use bytes")


def to_path(value: Any) -> str:
    """Returns a path as a text."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise refused(value, "use a text or a Path")
    return value


def to_time(value: Any) -> datetime:
    """Returns a time; numpy's are UTC."""
    if isinstance(value, np.datetime64):
        moment = value.astype("datetime64[us]").item()
        if isinstance(moment, datetime):
            return moment.replace(tzinfo=UTC)
    # pandas' NaT is a datetime that equals nothing, not even itself.
    elif isinstance(value, datetime) and value == value:
        return value
    raise refused(value, "use a datetime with a time zone, or leave it out")


def to_attribute(value: Any) -> c.AttributeValue:
    """Returns the value of an attribute."""
    if _is_plain(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, list | tuple | np.ndarray):
        return _each(value)  # type: ignore[no-any-return]
    return _scalar(value)


def _is_plain(value: Any) -> bool:
    """Returns whether a value is right as it is, as most are; a wrong one never passes."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    return kind is str or kind is bool or value is None or (kind is int and value in _INT64)


def _each(values: Any) -> Any:
    found = []
    for number, one in enumerate(values):
        try:
            found.append(_scalar(one))
        except Refused as error:
            raise Refused(error.problem, f"[{number}]") from error
    same = isinstance(values, list | tuple) and all(map(_is, found, values))
    return values if same else found


def _is(one: object, other: object) -> bool:
    return one is other


def _scalar(value: Any) -> c.Scalar:
    if _is_plain(value):
        return value  # type: ignore[no-any-return]
    match value:
        case str():
            return str(value)
        case int() | np.integer():
            number = int(value)
            if number not in _INT64:
                raise refused(value, "use an integer of 64 bits, or send it as text")
            return number
        case float() | np.floating():
            return to_float(value)
        case np.bool_():
            return bool(value)
        case datetime() | np.datetime64():
            return to_time(value)
    raise refused(value, "use str, bool, int, float, datetime, None or a flat list of them")


def to_vector(value: Any) -> Any:
    """Returns a (d,) float32 vector of a list, a tuple or an array of numbers."""
    if type(value) is np.ndarray and value.dtype == np.float32 and value.ndim == 1 and len(value):
        if np.isfinite(value).all():
            return value
    allowed = "use a flat list or an array of numbers"
    if isinstance(value, str | bytes | Mapping):
        raise refused(value, allowed)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise refused(value, allowed) from error
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.dtype.kind not in "fiu" or array.ndim != 1 or not len(array):
        raise refused(value, f"{allowed}; it has shape {array.shape} of {array.dtype}")
    with np.errstate(over="ignore"):
        vector = array.astype(np.float32, copy=False)
    finite = np.isfinite(vector)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise Refused(f"is {array[at]}; use finite numbers that fit 32 bits", f"[{at}]")
    return vector


def to_filter(value: Any) -> f.Filter:
    """Returns a filter of records, of a text (see `parse_filter`) or of a dict (see
    `filter_from_json`)."""
    if isinstance(value, f.Filter):
        return _plain_filter(value, f.MAX_DEPTH)  # type: ignore[no-any-return]
    try:
        if isinstance(value, str):
            return parse_filter(value)
        if isinstance(value, Mapping):
            return filter_from_json(_plain_json(value))
    except InvalidRequest as error:
        # "the filter cannot be read …" or "filter.any[0] is …", by `filter_text`.
        path = error.field.removeprefix("filter")
        problem = error.message.removeprefix("the filter ").removeprefix(f"{error.field} ")
        raise Refused(problem, path) from error
    except RecursionError as error:
        raise Refused("is nested too deeply; flatten it") from error
    raise refused(
        value, "use a text such as 'price < 80', a dict, or the records of nearline.filters"
    )


def _plain_filter(condition: Any, depth: int) -> Any:
    """Returns a filter without numpy's values; whatever is wrong is left to `check_filter`."""
    match condition:
        case f.All(parts) | f.Any(parts) if depth:
            found = [_plain_filter(one, depth - 1) for one in parts]
            same = all(map(_is, found, parts))
            return condition if same else type(condition)(*found)
        case f.Not(part) if depth:
            found_part = _plain_filter(part, depth - 1)
            return condition if found_part is part else f.Not(found_part)
        case f.In(field, values) if not isinstance(values, str | bytes):
            if isinstance(values, tuple) and not any(map(_is_numpy, set(map(type, values)))):
                return condition
            return f.In(field, tuple(map(_python_value, values)))
        case f.Equals(field, value) if isinstance(value, np.generic):
            return f.Equals(field, _python_value(value))
        case f.Range():
            bounds = {name: getattr(condition, name) for name in f.BOUNDS}
            found_bounds = {
                name: _python_value(one)
                for name, one in bounds.items()
                if isinstance(one, np.generic)
            }
            return dataclasses.replace(condition, **found_bounds) if found_bounds else condition
    return condition


def _is_numpy(kind: type) -> bool:
    return issubclass(kind, np.generic)


def _python_value(value: Any) -> Any:
    """Returns numpy's value as Python's, and any other as it is."""
    if isinstance(value, np.datetime64):
        return to_time(value)
    return value.item() if isinstance(value, np.generic) else value


def _plain_json(value: Any) -> Any:
    """Returns what people write in a dict as `json.loads` would return it."""
    value = _python_value(value)
    if isinstance(value, Mapping):
        return {key: _plain_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [_plain_json(one) for one in value]
    return {"$time": value.isoformat()} if isinstance(value, datetime) else value
