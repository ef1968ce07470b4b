"""Filters: the records of `nearline.filters` to protobuf and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nearline import filters as f
from nearline.errors import InvalidRequest
from nearline.v1 import types_pb2
from nearline.wire.values import scalar_from_proto, value_to_proto

# Reading a filter occupies the event loop; this size takes a tenth of a second.
MAX_FILTER_BYTES = 4 << 20


def filter_to_proto(condition: f.Filter) -> types_pb2.Filter:
    """Returns the message of a filter.

    Raises: InvalidRequest: see `check_filter`; names the path.
    """
    f.check_filter(condition)
    return _message(condition)


def filter_from_proto(message: types_pb2.Filter, path: str = "options.filter") -> f.Filter:
    """Returns the filter of a message.

    Args:
        message: The message; protobuf bounds its depth.
        path: Path of the filter in the request.
    Raises: InvalidRequest: a condition is empty or exceeds a limit; names its path, for example
        options.filter.all[1].range. The filter has more than 4 MiB.
    """
    _check_size(message, path)
    condition = _read(message, path)
    f.check_filter(condition, path)
    return condition


def _check_size(message: types_pb2.Filter, path: str) -> None:
    """Raises InvalidRequest if a filter is too large to read."""
    bytes_ = message.ByteSize()
    if bytes_ > MAX_FILTER_BYTES:
        raise InvalidRequest(
            f"{path} has {bytes_:,} bytes, {MAX_FILTER_BYTES:,} are allowed; split the request",
            field=path,
        )
    size = f.FilterSize(path)
    size.add(1)
    pending = [message]
    while pending:
        one = pending.pop()
        match one.WhichOneof("condition"):
            case "all" | "any" as kind:
                parts = getattr(one, kind).filters
                size.add(len(parts))
                pending.extend(parts)
            case "not":
                size.add(1)
                pending.append(getattr(one, "not"))
            case "in":
                size.add(0, len(getattr(one, "in").values))


def _message(condition: f.Filter) -> types_pb2.Filter:
    message = types_pb2.Filter()
    match condition:
        case f.All(parts):
            message.all.SetInParent()
            message.all.filters.extend(map(_message, parts))
        case f.Any(parts):
            message.any.SetInParent()
            message.any.filters.extend(map(_message, parts))
        case f.Not(part):
            getattr(message, "not").CopyFrom(_message(part))
        case f.Equals(field, value):
            message.equals.field = field
            message.equals.value.CopyFrom(value_to_proto(value))
        case f.In(field, values):
            getattr(message, "in").field = field
            getattr(message, "in").values.extend(map(value_to_proto, values))
        case f.Range():
            message.range.field = condition.field
            for bound in f.BOUNDS:
                if (value := getattr(condition, bound)) is not None:
                    getattr(message.range, bound).CopyFrom(value_to_proto(value))
        case f.Exists(field):
            message.exists.field = field
        case f.Words(text, share, similar):
            message.words.text, message.words.similar = text, similar
            message.words.share = share
        case f.Phrase(text):
            message.phrase.text = text
    return message


def _read(message: types_pb2.Filter, path: str) -> f.Filter:
    kind = message.WhichOneof("condition")
    if kind is None:
        raise InvalidRequest(f"{path} is empty; set a condition", field=path)
    return _READERS[kind](getattr(message, kind), f"{path}.{kind}")


def _parts(message: types_pb2.FilterList, path: str) -> list[f.Filter]:
    return [_read(part, f"{path}[{number}]") for number, part in enumerate(message.filters)]


def _value(message: types_pb2.Value, path: str) -> f.FilterValue:
    try:
        value = scalar_from_proto(message)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path} is a list; set one value, or use in", field=path) from error
    if value is None:
        raise InvalidRequest(f"{path} has no value; set one, or use exists", field=path)
    return value


def _words(message: types_pb2.TextWords) -> f.Words:
    share = message.share if message.HasField("share") else 1.0
    return f.Words(message.text, share, message.similar)


def _range(message: types_pb2.FieldRange, path: str) -> f.Range:
    bounds = {
        bound: _value(getattr(message, bound), f"{path}.{bound}")
        for bound in f.BOUNDS
        if message.HasField(bound)
    }
    return f.Range(message.field, **bounds)


_READERS: Mapping[str, Callable[..., f.Filter]] = {
    "all": lambda message, path: f.All(*_parts(message, path)),
    "any": lambda message, path: f.Any(*_parts(message, path)),
    "not": lambda message, path: f.Not(_read(message, path)),
    "equals": lambda message, path: f.Equals(message.field, _value(message.value, f"{path}.value")),
    "in": lambda message, path: f.In(
        message.field,
        tuple(_value(value, f"{path}.values[{at}]") for at, value in enumerate(message.values)),
    ),
    "range": _range,
    "exists": lambda message, path: f.Exists(message.field),
    "words": lambda message, path: _words(message),
    "phrase": lambda message, path: f.Phrase(message.text),
}
