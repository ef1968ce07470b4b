"""Metadata of frameworks' documents as attributes of items, and back without loss.

Metadata is whatever JSON holds, while an attribute has one kind in the whole collection. What fits
becomes an attribute, which filters can use. If the attributes differ from the metadata, the item
has the metadata as JSON, too.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np

from nearline import contract as c, filters as f
from nearline.errors import InvalidRequest
from nearline.items.attributes import LIST, flatten
from nearline.times import in_utc

# Attributes of Nearline's own: the metadata as JSON, and whether the vector stands for none.
METADATA: Final = "_metadata"
NO_VECTOR: Final = "_no_vector"
OWN: Final = frozenset({METADATA, NO_VECTOR})
MAX_FIELDS: Final = 256
_MAX_NAME: Final = 256
_TIME_KEY: Final = "$time"
_BYTES_KEY: Final = "$bytes"
_INT64: Final = range(-(1 << 63), 1 << 63)
_ISO: Final = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ].+)?")


def infer_kinds(several: Iterable[Mapping[str, Any]], most: int = MAX_FIELDS) -> dict[str, str]:
    """Returns the kinds of attributes that hold the metadata of some documents.

    Args:
        several: Metadata of each document.
        most: Most attributes; later ones are left out.
    Returns: Kinds by name, as `create_collection` takes them: "int", "string[]". Integers and
        decimals together are doubles, and texts that are all ISO 8601 dates are times. An attribute
        of several kinds is left out, since no filter could use it.
    """
    kinds: dict[str, set[str]] = {}
    lists: set[str] = set()
    for metadata in several:
        for name, value in flat(metadata):
            if not 0 < len(name) <= _MAX_NAME or name.startswith("$"):
                continue
            if isinstance(value, list):
                lists.add(name)
            for one in value if isinstance(value, list) else [value]:
                if (kind := _kind_of(one)) is not None:
                    kinds.setdefault(name, set()).add(kind)
    single = {name: _joined(found) for name, found in kinds.items()}
    known = [(name, kind + LIST * (name in lists)) for name, kind in single.items() if kind]
    return dict(known[:most])


def to_attributes(
    metadata: Mapping[str, Any],
    kinds: Mapping[str, str],
    record: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the attributes of metadata, for an item of a collection with these kinds.

    Args:
        metadata: The metadata.
        kinds: Kinds of the collection's attributes, by name.
        record: What `from_attributes` returns. Optional; None is the metadata.
    Raises: InvalidRequest: JSON cannot hold a value; names it.
    """
    attributes = {}
    for name, value in flat(metadata):
        kept = _fitting(value, kinds.get(name))
        if kept is not None:
            attributes[name] = kept
    if record is not None or not _same(attributes, metadata):
        attributes[METADATA] = _to_json(metadata if record is None else record)
    return attributes


def from_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata of an item."""
    if text := attributes.get(METADATA):
        metadata: dict[str, Any] = json.loads(text, object_hook=_from_json)
        return metadata
    return {name: value for name, value in attributes.items() if name not in OWN}


def fit_filter(condition: f.Filter, kinds: Mapping[str, str]) -> f.Filter:
    """Returns a filter whose dates are times where the attribute is one.

    Raises: InvalidRequest: the collection has no such attribute; names the remedy.
    """
    match condition:
        case f.All(parts):
            return f.All(*(fit_filter(one, kinds) for one in parts))
        case f.Any(parts):
            return f.Any(*(fit_filter(one, kinds) for one in parts))
        case f.Not(part):
            return f.Not(fit_filter(part, kinds))
        case f.Words() | f.Phrase():
            return condition
    kind = kinds.get(condition.field, "").removesuffix(LIST)
    if not kind:
        names = ", ".join(sorted(set(kinds) - OWN)) or "none"
        raise InvalidRequest(
            f"the collection has no attribute {condition.field[:200]!r} that a filter can use; it "
            f"has {names[:1_000]}. Pass attributes={{name: kind}} when the collection is created; "
            "others can be used once the first compaction has seen them",
            field="filter",
        )
    if kind == "time":
        match condition:
            case f.Equals(field, value):
                return f.Equals(field, _as_time(value))
            case f.In(field, values):
                return f.In(field, tuple(map(_as_time, values)))
            case f.Range(field):
                bounds = {name: getattr(condition, name) for name in f.BOUNDS}
                given = {name: _as_time(one) for name, one in bounds.items() if one is not None}
                return f.Range(field, **given)
    return condition


def one_of(field: str, values: Iterable[Any]) -> f.Filter:
    """Returns a filter on one of some values; without any, nothing matches."""
    several = tuple(values)
    return f.In(field, several) if several else f.Any()


# Comparisons of an attribute with a value, by the names that frameworks have for them.
COMPARISONS: Final[Mapping[str, Callable[[str, Any], f.Filter]]] = {
    "eq": f.Equals,
    "ne": lambda field, value: f.Not(f.Equals(field, value)),
    "gt": lambda field, value: f.Range(field, gt=value),
    "gte": lambda field, value: f.Range(field, gte=value),
    "lt": lambda field, value: f.Range(field, lt=value),
    "lte": lambda field, value: f.Range(field, lte=value),
    "in": one_of,
    "nin": lambda field, values: f.Not(one_of(field, values)),
}


def flat(metadata: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yields the values of metadata under names joined by dots, in types that attributes have."""
    for name, value in metadata.items():
        for flat_name, one in flatten(str(name), value):
            if flat_name not in OWN:
                yield flat_name, _plain(one)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _kind_of(value: Any) -> str | None:
    """Returns the kind of a value; None if no attribute holds it."""
    if isinstance(value, str):
        return "string" if iso_time(value) is None else "time"
    if isinstance(value, date):
        return "time"
    if _scalar(value) is None:
        return None
    return f.kind_of(value)


def _joined(kinds: set[str]) -> str:
    """Returns the kind that holds several; empty if none does."""
    if kinds == {"int", "double"}:
        return "double"
    if kinds == {"string", "time"}:
        return "string"
    return next(iter(kinds)) if len(kinds) == 1 else ""


def _fitting(value: Any, kind: str | None) -> Any:
    """Returns a value as an attribute of a kind, or of any kind; None if it does not fit."""
    single = kind and kind.removesuffix(LIST)
    if not isinstance(value, list):
        return _as_kind(value, single)
    if kind is not None and kind == single:
        return None
    return [fit for one in value if (fit := _as_kind(one, single)) is not None]


def _scalar(value: Any) -> c.Scalar:
    match value:
        case bool() | str():
            return value
        case int():
            return value if value in _INT64 else None
        case float():
            return value if math.isfinite(value) else None
        case date():
            return in_utc(value)
    return None


def _as_kind(value: Any, kind: str | None) -> c.Scalar:
    """Returns one value as a kind, or as any; None if it does not fit."""
    if kind == "time" and isinstance(value, str):
        return iso_time(value)
    scalar = _scalar(value)
    if kind is None:
        return scalar
    if kind == "double" and isinstance(scalar, int) and not isinstance(scalar, bool):
        return float(scalar)
    return scalar if scalar is not None and f.kind_of(scalar) == kind else None


def iso_time(text: str) -> datetime | None:
    """Returns the time that an ISO 8601 date or time names; None if it is another text."""
    if not _ISO.fullmatch(text):
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError:
        return None


def _as_time(value: f.FilterValue) -> f.FilterValue:
    # A text that is no date stays, and the service says what is wrong with it.
    return (iso_time(value) or value) if isinstance(value, str) else value


def _same(attributes: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Returns whether metadata is what an item with these attributes gives back."""
    return attributes.keys() == metadata.keys() and all(
        _equal(value, metadata[name]) for name, value in attributes.items()
    )


def _equal(stored: Any, value: Any) -> bool:
    if type(stored) is not type(value) or stored != value:
        return False
    if isinstance(stored, list):
        # An empty list is no attribute.
        return bool(stored) and all(map(_equal, stored, value))
    return not isinstance(stored, datetime) or value.tzinfo is UTC


def _to_json(metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(metadata, ensure_ascii=False, default=_encoded)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"metadata cannot be stored as JSON: {error}"[:300]) from error


def _encoded(value: Any) -> Any:
    match value:
        case datetime():
            return {_TIME_KEY: value.isoformat()}
        case date():
            return value.isoformat()
        case bytes():
            return {_BYTES_KEY: base64.b64encode(value).decode()}
        case np.generic() | np.ndarray():
            return value.tolist()
        case Mapping():
            return dict(value)
        case Sequence() | set() | frozenset():
            return list(value)
    raise TypeError(f"a value is of type {type(value).__name__}")


def _from_json(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        if isinstance(text := value.get(_TIME_KEY), str):
            return datetime.fromisoformat(text)
        if isinstance(text := value.get(_BYTES_KEY), str):
            return base64.b64decode(text)
    return value
