"""Endpoints of methods: JSON in, one call of a service, JSON or events out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.body import parse_json, read_body, read_lines
from gateway.conversion import convert
from gateway.disconnect import unless_gone
from gateway.event_stream import begun, event_response
from gateway.gateway_calls import GatewayCalls
from gateway.interaction_rows import read_interactions
from gateway.json_decoder import decode, set_field
from gateway.json_encoder import encode
from gateway.problem import problem
from gateway.request_context import request_id
from gateway.routes import Route
from gateway.upstream import SERVICES, CallContext, Metadata, Method
from nearline.errors import NearlineError

_RATE_LIMIT: Final = "ratelimit"


class RpcEndpoint:
    """The endpoint of one method.

    Args:
        calls: The services, and limits.
        service, name: The method.
        route: Its verb and path.
    """

    def __init__(self, calls: GatewayCalls, service: str, name: str, route: Route) -> None:
        descriptor = SERVICES[service].methods_by_name[name]
        self._calls = calls
        self._service = service
        self._name = name
        self._route = route
        self._streams_in = descriptor.client_streaming
        self._streams_out = descriptor.server_streaming

    async def __call__(self, request: Request) -> Response:
        """Answers a request. Raises: Any NearlineError. ClientGone."""
        context = self._calls.context(request)
        method = self._calls.upstream.method(self._service, self._name)
        if self._streams_in:
            return await self._stream_in(request, method, context)
        message = await self._message(request, method)
        if self._streams_out:
            return await self._events(request, method.many(message, context))
        reply, trailers = await unless_gone(request, method.one(message, context))
        return await _json(reply, trailers)

    async def _message(self, request: Request, method: Method) -> Message:
        if self._route.has_body:
            body = await read_body(request, self._calls.settings.max_body_bytes)
            message = await convert(len(body), lambda: decode(method.request, parse_json(body)))
        else:
            message = method.request()
            _set_query(message, request)
        for name, value in request.path_params.items():
            set_field(message, name, value)
        return message

    async def _stream_in(self, request: Request, method: Method, context: CallContext) -> Response:
        batches = self._rows(request) if self._route.rows else self._lines(request, method)

        async def messages() -> AsyncIterator[Message]:
            async for inner in batches:
                for name, value in request.path_params.items():
                    set_field(inner, name, value)
                message: Any = method.request()
                message.request.MergeFrom(inner)
                yield message

        if not self._streams_out:
            return await _json(*await method.one(messages(), context))
        replies = method.many(messages(), context)
        first = await anext(replies, None)

        async def lines() -> AsyncIterator[bytes]:
            async for reply in begun(first, replies):
                yield orjson.dumps(encode(_event_of(reply)[1])) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _lines(self, request: Request, method: Method) -> AsyncIterator[Message]:
        """Yields the message of each line of a body."""
        kind = type(method.request().request)  # type: ignore[attr-defined]
        async for number, line in read_lines(request, self._calls.settings.max_body_bytes):
            yield decode(kind, parse_json(line), f"line {number}")

    async def _rows(self, request: Request) -> AsyncIterator[Message]:
        """Yields batches of the lines of a body, at least one."""
        limit = self._calls.settings.max_body_bytes
        async for batch in read_interactions(request, limit):
            _set_query(batch, request)
            yield batch

    async def _events(self, request: Request, replies: AsyncIterator[Message]) -> Response:
        # An error before the first event has a status of its own.
        first = await unless_gone(request, anext(replies, None))
        return event_response(_server_sent(begun(first, replies), request_id(request)))


def _set_query(message: Message, request: Request) -> None:
    """Sets the fields that the query of a request names."""
    fields = message.DESCRIPTOR.fields_by_name
    for name in request.query_params:
        values: Any = request.query_params.getlist(name)
        is_list = name in fields and fields[name].is_repeated
        set_field(message, name, values if is_list else values[-1])


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
    body = await convert(reply.ByteSize(), lambda: orjson.dumps(encode(reply)))
    headers = {name: str(value) for name, value in trailers if name == _RATE_LIMIT}
    return Response(body, media_type="application/json", headers=headers)
