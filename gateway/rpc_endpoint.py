"""Endpoints of methods: JSON in, one call of a service, JSON or events out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar

import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.body import parse_json, read_body, read_lines
from gateway.disconnect import unless_gone
from gateway.json_decoder import decode, set_field
from gateway.json_encoder import encode
from gateway.problem import problem
from gateway.request_context import call_context, request_id
from gateway.routes import Route
from gateway.settings import GatewaySettings
from gateway.upstream import SERVICES, CallContext, Metadata, Method, Upstream
from nearline.errors import NearlineError

_T = TypeVar("_T")
# Larger messages are converted in a thread: this takes a few milliseconds.
_BYTES_PER_TURN: Final = 128 << 10
_RATE_LIMIT: Final = "ratelimit"


class RpcEndpoint:
    """The endpoint of one method.

    Args:
        upstream: The services.
        settings: Limits.
        service, name: The method.
        route: Its verb and path.
    """

    def __init__(
        self, upstream: Upstream, settings: GatewaySettings, service: str, name: str, route: Route
    ) -> None:
        descriptor = SERVICES[service].methods_by_name[name]
        self._upstream = upstream
        self._settings = settings
        self._service = service
        self._name = name
        self._route = route
        self._streams_in = descriptor.client_streaming
        self._streams_out = descriptor.server_streaming

    async def __call__(self, request: Request) -> Response:
        """Answers a request. Raises: Any NearlineError. ClientGone."""
        limits = self._settings
        context = call_context(request, request_id(request), limits.timeout_s, limits.max_timeout_s)
        method = self._upstream.method(self._service, self._name)
        if self._streams_in:
            return await self._stream_in(request, method, context)
        message = await self._message(request, method)
        if self._streams_out:
            return await self._events(request, method, message, context)
        reply, trailers = await unless_gone(request, method.one(message, context))
        return await _json(reply, trailers)

    async def _message(self, request: Request, method: Method) -> Message:
        if self._route.has_body:
            body = await read_body(request, self._settings.max_body_bytes)
            if len(body) > _BYTES_PER_TURN:
                message = await asyncio.to_thread(lambda: decode(method.request, parse_json(body)))
            else:
                message = decode(method.request, parse_json(body))
        else:
            message = method.request()
            fields = message.DESCRIPTOR.fields_by_name
            for name in request.query_params:
                values: Any = request.query_params.getlist(name)
                is_list = name in fields and fields[name].is_repeated
                set_field(message, name, values if is_list else values[-1])
        for name, value in request.path_params.items():
            set_field(message, name, value)
        return message

    async def _stream_in(self, request: Request, method: Method, context: CallContext) -> Response:
        async def messages() -> AsyncIterator[Message]:
            async for number, line in read_lines(request, self._settings.max_body_bytes):
                message = method.request()
                inner: Any = message.request  # type: ignore[attr-defined]
                inner.MergeFrom(decode(type(inner), parse_json(line), f"line {number}"))
                for name, value in request.path_params.items():
                    set_field(inner, name, value)
                yield message

        if not self._streams_out:
            return await _json(*await method.one(messages(), context))
        replies = method.many(messages(), context)
        first = await anext(replies, None)

        async def lines() -> AsyncIterator[bytes]:
            async for reply in _begun(first, replies):
                yield orjson.dumps(encode(_event_of(reply)[1])) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _events(
        self, request: Request, method: Method, message: Message, context: CallContext
    ) -> Response:
        replies = method.many(message, context)
        # An error before the first event has a status of its own.
        first = await unless_gone(request, anext(replies, None))
        own_id = str(dict(context.metadata)["x-request-id"])
        return StreamingResponse(
            _server_sent(_begun(first, replies), own_id),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )


async def _begun(first: Message | None, others: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """Yields a first message that was read already, then the others."""
    if first is not None:
        yield first
        async for one in others:
            yield one


async def _server_sent(replies: AsyncIterator[Message], own_id: str) -> AsyncIterator[bytes]:
    """Yields events; each is named after the part of the message that is set.

    An error is an event, too, and the last one.
    """
    try:
        async for reply in replies:
            kind, content = _event_of(reply)
            yield b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(encode(content)))
    except NearlineError as error:
        yield b"event: error\ndata: %s\n\n" % problem(error, own_id)


def _event_of(reply: Any) -> tuple[str, Message]:
    """Returns the name and the content of an event; of one that a newer service sends, all."""
    oneofs = reply.DESCRIPTOR.oneofs
    kind = reply.WhichOneof(oneofs[0].name) if oneofs else reply.DESCRIPTOR.fields[0].name
    return ("message", reply) if kind is None else (kind, getattr(reply, kind))


async def _json(reply: Message, trailers: Metadata) -> Response:
    if reply.ByteSize() > _BYTES_PER_TURN:
        body = await asyncio.to_thread(lambda: orjson.dumps(encode(reply)))
    else:
        body = orjson.dumps(encode(reply))
    headers = {name: str(value) for name, value in trailers if name == _RATE_LIMIT}
    return Response(body, media_type="application/json", headers=headers)
