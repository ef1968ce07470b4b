"""Conversion of the arguments of clients by their type hints.

People may write texts for enums, filters and queries, lists for vectors, and numpy's values for
Python's. What has the right type already is passed on as it is. Services, which use the same
records, convert nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import numpy as np

from nearline import contract as c, filters as f
from nearline.clients import argument_values as values
from nearline.clients.argument_values import Refused, refused
from nearline.errors import InvalidRequest

_Client = TypeVar("_Client")
_P = ParamSpec("_P")
_R = TypeVar("_R")
# Converts a value. Raises: Refused.
_Convert: TypeAlias = Callable[[Any], Any]

# Searches of a client return these unless told otherwise.
SEARCH_PAYLOAD: Final = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT})
# The field that a text alone stands for.
_SHORTHANDS: Final[Mapping[type, str]] = {
    c.Audience: "user_id",
    c.Facet: "field",
    c.Grouping: "field",
    c.Query: "text",
    c.Question: "text",
}
# The field that numbers alone stand for.
_OF_NUMBERS: Final[Mapping[type, str]] = {c.Query: "vector"}
_UINT32: Final = range(1 << 32)
_UINT64: Final = range(1 << 64)
_OF_64_BITS: Final = {
    "end",
    "first_row",
    "if_versions",
    "offset",
    "session_version",
    "start",
    "version",
}
# What the service allows of numbers, for messages.
_RANGES: Final = {"k": f"1..{c.MAX_K}", "n": f"1..{c.MAX_RECOMMENDED}"}
_KEYED_BY_ID: Final = {"as_of", "if_versions"}


def converts_arguments(client: type[_Client]) -> type[_Client]:
    """Makes the public methods of a client convert their arguments.

    They raise InvalidRequest for an argument that cannot be converted: its path, the value, and the
    values allowed.
    """
    for name, method in list(vars(client).items()):
        if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
            setattr(client, name, _converting(method))
        elif isinstance(method, classmethod):
            setattr(client, name, classmethod(_converting(method.__func__)))
    return client


def converter(hint: Any, name: str) -> Callable[[Any], Any]:
    """Returns the conversion of an argument.

    Args:
        hint: Its type.
        name: Its name, for errors.
    """
    convert = _converter(hint, name)

    def named(value: Any) -> Any:
        try:
            return convert(value)
        except Refused as error:
            path = f"{name}{error.path}"
            raise InvalidRequest(f"{path} {error.problem}", field=path) from None

    return named


def _converting(method: Callable[_P, _R]) -> Callable[_P, _R]:
    names = list(inspect.signature(method).parameters)

    @functools.cache
    def converters() -> Mapping[str, Callable[[Any], Any]]:
        hints = typing.get_type_hints(method)
        return {name: converter(hints[name], name) for name in names if name in hints}

    def converted(args: Any, more: Any) -> tuple[list[Any], dict[str, Any]]:
        by_name = converters()
        positional = [
            by_name[name](one) if name in by_name else one
            for name, one in zip(names, args, strict=False)
        ]
        # Too many of them, and unknown names, are reported by Python.
        positional.extend(args[len(names) :])
        keywords = {
            name: by_name[name](one) if name in by_name else one for name, one in more.items()
        }
        return positional, keywords

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            positional, keywords = converted(args, kwargs)
            return await method(*positional, **keywords)

    else:

        @functools.wraps(method)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            positional, keywords = converted(args, kwargs)
            return method(*positional, **keywords)

    return call  # type: ignore[return-value]


def _converter(hint: Any, name: str) -> _Convert:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (UnionType, typing.Union):
        convert = _alternatives([one for one in parts if one is not NoneType], name)
        if NoneType not in parts:
            return convert
        return lambda value: None if value is None else convert(value)
    if origin is np.ndarray:
        return values.to_vector
    if origin is not None and issubclass(origin, Mapping):
        keys = values.to_id if name in _KEYED_BY_ID else values.to_text
        return _entries(keys, _converter(parts[1], name))
    if origin is not None and issubclass(origin, AsyncIterable):
        return _stream(_converter(parts[0], name))
    if origin is not None and issubclass(origin, Iterable):
        return _several(_converter(parts[0], name), origin)
    if not isinstance(hint, type):
        return _as_is
    if issubclass(hint, Enum):
        return _enum(hint)
    if dataclasses.is_dataclass(hint):
        return _record(hint)
    return _scalar(hint, name)


def _scalar(hint: type, name: str) -> _Convert:
    if hint is str:
        is_id = name in ("id", "ids") or name.endswith(("_id", "_ids"))
        return values.to_id if is_id else values.to_text
    if hint is int:
        allowed = _UINT64 if name in _OF_64_BITS else _UINT32
        shown = _RANGES.get(name, f"0..{allowed[-1]}")
        return lambda value: values.to_int(value, allowed, shown)
    return _SCALARS.get(hint, _as_is)


_SCALARS: Final[Mapping[type, _Convert]] = {
    bool: values.to_bool,
    bytes: values.to_bytes,
    datetime: values.to_time,
    float: values.to_float,
}


def _as_is(value: Any) -> Any:
    return value


def _alternatives(hints: list[Any], name: str) -> _Convert:
    """Returns the conversion to one of several types, of which texts and numbers stand for others.

    So `Query | str` is a query: its own conversion takes texts and numbers.
    """
    if f.All in hints:
        return values.to_filter
    if datetime in hints and str in hints:
        return values.to_attribute
    if any(typing.get_origin(one) is os.PathLike for one in hints):
        return values.to_path
    records = [one for one in hints if isinstance(one, type) and dataclasses.is_dataclass(one)]
    if not records and any(typing.get_origin(one) is np.ndarray for one in hints):
        return values.to_vector
    if len(records) > 1:
        return _one_of(records)
    kinds = [one for one in hints if isinstance(one, type) and issubclass(one, Enum)]
    return _converter((*records, *kinds, *hints)[0], name)


@functools.cache
def _enum(kind: type[Enum]) -> _Convert:
    members = {one.value: one for one in kind}
    allowed = f"use one of {', '.join(members)}, or a {kind.__name__}"

    def convert(value: Any) -> Any:
        if type(value) is kind:
            return value
        found = members.get(value) if isinstance(value, str) else None
        if found is None:
            raise refused(value, allowed)
        return found

    return convert


@functools.cache
def _record(kind: Any) -> _Convert:
    """Returns the conversion of a record: of its fields, those apart that have their default."""
    hints = typing.get_type_hints(kind)
    fields = [
        (one.name, _default(one), _converter(hints[one.name], one.name))
        for one in dataclasses.fields(kind)
    ]
    shorthand, of_numbers = _SHORTHANDS.get(kind), _OF_NUMBERS.get(kind)
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    others = ["a text"] * bool(shorthand) + ["a list of numbers"] * bool(of_numbers) + ["a dict"]
    allowed = f"use {', '.join([f'{article} {kind.__name__}', *others[:-1]])} or {others[-1]}"

    def convert(value: Any) -> Any:
        if type(value) is not kind:
            if shorthand and isinstance(value, str):
                value = kind(**{shorthand: value})
            elif of_numbers and isinstance(value, list | tuple | np.ndarray):
                value = kind(**{of_numbers: value})
            elif isinstance(value, Mapping):
                value = _of_mapping(kind, value)
            else:
                raise refused(value, allowed)
        changed = {}
        for name, default, convert_field in fields:
            given = getattr(value, name)
            if given is default:
                continue
            try:
                taken = convert_field(given)
            except Refused as error:
                raise Refused(error.problem, f".{name}{error.path}") from error
            if taken is not given:
                changed[name] = taken
        return dataclasses.replace(value, **changed) if changed else value

    return convert


def _of_mapping(kind: Any, value: Mapping[Any, Any]) -> Any:
    """Returns the record of a dict by the names of its fields."""
    fields = {one.name: one for one in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise Refused(f"has the unknown key {name!r}; use {', '.join(fields)}")
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in value and not optional:
            raise Refused(f"lacks the key {name!r}")
    return kind(**value)


def _default(field: dataclasses.Field[Any]) -> Any:
    """Returns the default of a field, or MISSING if it has none that can be passed on."""
    unset = isinstance(field.default, c.ClientPayload)
    return dataclasses.MISSING if unset else field.default


def _one_of(records: list[Any]) -> _Convert:
    by_kind = {one: _record(one) for one in records}
    allowed = f"use one of {', '.join(one.__name__ for one in records)}"

    def convert(value: Any) -> Any:
        one = by_kind.get(type(value))
        if one is None:
            raise refused(value, allowed)
        return one(value)

    return convert


def _several(convert_one: _Convert, origin: Any) -> _Convert:
    """Returns the conversion of a collection; one that need not change is passed on."""
    build: Any = next((kind for kind in (tuple, frozenset) if origin is kind), list)
    # Of a sequence callers may want the length; of an iterable they may not.
    kept = (origin,) if build is not list else (list, tuple, frozenset)

    def convert(value: Any) -> Any:
        if isinstance(value, c.ClientPayload):
            return SEARCH_PAYLOAD
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise refused(value, "use a list" + (" of texts" if isinstance(value, str) else ""))
        found = []
        same = isinstance(value, kept)
        for number, one in enumerate(value):
            try:
                taken = convert_one(one)
            except Refused as error:
                raise Refused(error.problem, f"[{number}]{error.path}") from error
            found.append(taken)
            same = same and taken is one
        return value if same else build(found)

    return convert


def _entries(convert_key: _Convert, convert_one: _Convert) -> _Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise refused(value, "use a dict")
        found = {}
        same = True
        for key, one in value.items():
            try:
                name = convert_key(key)
            except Refused as error:
                raise Refused(f"has a key that {error.problem}") from error
            try:
                taken = convert_one(one)
            except Refused as error:
                raise Refused(error.problem, f".{name}{error.path}") from error
            found[name] = taken
            same = same and taken is one and name is key
        return value if same else found

    return convert


def _stream(convert_one: _Convert) -> _Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, AsyncIterable):
            raise refused(value, "use an async iterator; blocking clients take a plain one")
        return batches(value)

    async def batches(given: AsyncIterable[Any]) -> AsyncIterator[Any]:
        number = 0
        async for one in given:
            try:
                taken = convert_one(one)
            except Refused as error:
                path = f"batches[{number}]{error.path}"
                raise InvalidRequest(f"{path} {error.problem}", field=path) from None
            yield taken
            number += 1

    return convert
