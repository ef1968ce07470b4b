"""A client and a servicer joined without a socket, and a service that records its calls."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from tests.nearline.wire.full_records import FullRecords


class Loopback:
    """Takes the place of a client's stub: passes every message, encoded and decoded, to a servicer.

    messages: All messages that crossed.
    """

    def __init__(self, service: ServiceDescriptor, servicer: Any) -> None:
        self._service = service
        self._servicer = servicer
        self.messages: list[Message] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self._service.methods_by_name[name]
        handler = getattr(self._servicer, name)

        def call(request: Any = None, timeout: float | None = None, metadata: Any = ()) -> Any:
            context = _Context(timeout, metadata)
            if method.client_streaming and not method.server_streaming:
                return _Upload(self, handler, context)
            if method.client_streaming:
                return _Exchange(self, handler, context)
            if method.server_streaming:
                return _Download(self.replies(handler(self.crossed(request), context)))
            return self._reply(handler(self.crossed(request), context))

        return call

    def crossed(self, message: Any) -> Any:
        """Returns a message as the other side receives it."""
        self.messages.append(message)
        return type(message).FromString(message.SerializeToString())

    async def _reply(self, answer: Any) -> Any:
        return self.crossed(await answer)

    async def replies(self, answers: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for one in answers:
            yield self.crossed(one)


class _Context:
    def __init__(self, timeout: float | None, metadata: Any) -> None:
        self._timeout, self._metadata = timeout, metadata

    def time_remaining(self) -> float | None:
        return self._timeout

    def invocation_metadata(self) -> Any:
        return self._metadata


class _Download:
    def __init__(self, replies: AsyncIterator[Any]) -> None:
        self._replies = replies

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._replies

    def cancel(self) -> None:
        pass


class _Upload:
    def __init__(self, loop: Loopback, handler: Callable[..., Any], context: object) -> None:
        self._loop, self._handler, self._context = loop, handler, context
        self._requests: list[Any] = []

    async def write(self, request: Any) -> None:
        self._requests.append(self._loop.crossed(request))

    async def done_writing(self) -> None:
        pass

    def cancel(self) -> None:
        pass

    def __await__(self) -> Iterator[Any]:
        async def requests() -> AsyncIterator[Any]:
            for one in self._requests:
                yield one

        async def reply() -> Any:
            return self._loop.crossed(await self._handler(requests(), self._context))

        return reply().__await__()


class _Exchange:
    def __init__(self, loop: Loopback, handler: Callable[..., Any], context: object) -> None:
        self._loop = loop
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._replies = loop.replies(handler(self._sent(), context))

    async def _sent(self) -> AsyncIterator[Any]:
        while (one := await self._requests.get()) is not None:
            yield one

    async def write(self, request: Any) -> None:
        self._requests.put_nowait(self._loop.crossed(request))

    async def done_writing(self) -> None:
        self._requests.put_nowait(None)

    async def read(self) -> Any:
        return await anext(self._replies, grpc.aio.EOF)

    def cancel(self) -> None:
        pass


class RecordingService:
    """Answers every method of some protocols with full records of its own.

    calls: Name and arguments of each call. replies: What was returned.
    """

    def __init__(self, full: FullRecords, *protocols: type) -> None:
        self._full = full
        self._methods = {
            name: method for one in protocols for name, method in methods_of(one).items()
        }
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.replies: list[Any] = []
        self.callers: list[object] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self._methods[name]
        kind = typing.get_type_hints(method)["return"]

        def call(*given: Any, caller: object = None, **more: Any) -> Any:
            bound = inspect.signature(method).bind(self, *given, **more)
            self.calls.append(
                (name, {key: bound.arguments[key] for key in list(bound.arguments)[1:]})
            )
            self.callers.append(caller)
            if inspect.iscoroutinefunction(method):
                return self._one(kind)
            return self._many(typing.get_args(kind)[0])

        return call

    async def _one(self, kind: Any) -> Any:
        self.replies.append(self._full.of(kind))
        return self.replies[-1]

    async def _many(self, kind: Any) -> AsyncIterator[Any]:
        for one in typing.get_args(kind) or (kind, kind):
            self.replies.append(self._full.of(one))
            yield self.replies[-1]


def methods_of(protocol: type) -> dict[str, Any]:
    """Returns the public methods of a protocol."""
    return {
        name: method
        for name, method in vars(protocol).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def unset_fields(message: Message) -> Iterator[str]:
    """Yields the fields that are empty in a message, or in a message in it: "Hit.title".

    Of the fields of a oneof, one is set if any is.
    """
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            if message.WhichOneof(oneof.name) is None:
                yield f"{message.DESCRIPTOR.name}.{oneof.name}"
            continue
        value = getattr(message, field.name)
        empty = not message.HasField(field.name) if field.has_presence else not value
        if empty:
            yield f"{message.DESCRIPTOR.name}.{field.name}"
    for one in parts_of(message):
        yield from unset_fields(one)


def set_fields(message: Message) -> Iterator[str]:
    """Yields all fields that a message, or a message in it, has."""
    for field, _ in message.ListFields():
        yield f"{message.DESCRIPTOR.name}.{field.name}"
    for one in parts_of(message):
        yield from set_fields(one)


def parts_of(message: Message) -> Iterator[Message]:
    """Yields the messages in a message, one level down; not those of protobuf itself."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if kind.GetOptions().map_entry:
            values = list(value.values()) if _is_message(kind.fields_by_name["value"]) else []
        else:
            values = list(value) if field.is_repeated else [value]
        yield from (one for one in values if not one.DESCRIPTOR.full_name.startswith("google."))


def all_fields(kinds: Iterator[Descriptor]) -> Iterator[str]:
    """Yields the fields of messages, and of the messages declared in them."""
    for kind in kinds:
        if not kind.GetOptions().map_entry:
            yield from (f"{kind.name}.{field.name}" for field in kind.fields)
            yield from all_fields(iter(kind.nested_types))


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None
