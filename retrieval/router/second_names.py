"""Lets the methods of a servicer take the second names of collections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from nearline.access.method_guard import current_caller
from nearline.access.rights import METHODS, Right
from nearline.contract import DEFAULT_COLLECTION

# These say what a name means.
_LITERAL = frozenset({"CreateCollection", "DropCollection", "SetCollectionName"})


class TakesSecondNames:
    """A servicer whose requests name the collection itself when they reach it.

    The right in the name that was asked for is enough, unless the caller's key has a right of its
    own in the collection: "*=write books=read" does not write books by another name.

    Args:
        servicer: The servicer.
        service: Its service.
        resolve: Returns the collection of a name.
    """

    def __init__(
        self, servicer: Any, service: ServiceDescriptor, resolve: Callable[[str], str]
    ) -> None:
        for method in service.methods:
            call = getattr(servicer, method.name)
            if method.name not in _LITERAL and _names_collection(method):
                rename = _rename_stream if method.client_streaming else _rename
                row = METHODS[service.full_name][method.name]
                check = partial(_check_right, row.right, method.name)
                call = partial(_called, call, partial(rename, resolve, check))
            setattr(self, method.name, call)


def _names_collection(method: MethodDescriptor) -> bool:
    fields = method.input_type.fields_by_name
    if method.client_streaming:
        batch = fields["request"].message_type
        assert batch is not None
        fields = batch.fields_by_name
    return "collection" in fields


def _called(
    call: Callable[..., Any], rename: Callable[[Any], Any], request: Any, *rest: Any
) -> Any:
    return call(rename(request), *rest)


def _check_right(right: Right, method: str, collection: str) -> None:
    caller = current_caller()
    if collection in caller.rights:
        caller.require(right, method, collection)


def _rename(resolve: Callable[[str], str], check: Callable[[str], None], request: Any) -> Any:
    asked = request.collection or DEFAULT_COLLECTION
    named = resolve(asked)
    if named != asked:
        check(named)
        request.collection = named
    return request


async def _rename_stream(
    resolve: Callable[[str], str], check: Callable[[str], None], requests: AsyncIterator[Any]
) -> AsyncIterator[Any]:
    async for one in requests:
        _rename(resolve, check, one.request)
        yield one
