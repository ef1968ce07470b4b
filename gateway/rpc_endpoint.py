"""Endpoints of methods: JSON in, one call of a service, JSON or events out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive

from gateway.body import parse_json, read_body, read_lines
from gateway.conversion import LARGE_BYTES, convert
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
from nearline.errors import InvalidRequest, NearlineError
from nearline.v1 import retrieval_pb2

_RATE_LIMIT: Final = "ratelimit"
_Written = retrieval_pb2.UpsertItemsResponse | retrieval_pb2.DeleteItemsResponse
_StreamWritten = retrieval_pb2.UpsertItemsStreamResponse | retrieval_pb2.DeleteItemsStreamResponse


class _TwoWayResponse(StreamingResponse):
    """A stream of replies to requests that still arrive; Starlette would swallow those."""

    def __init__(self, lines: AsyncIterator[bytes], is_read: asyncio.Event) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._is_read = is_read

    async def listen_for_disconnect(self, receive: Receive) -> None:
        await self._is_read.wait()
        await super().listen_for_disconnect(receive)


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
        if self._route.has_body:
            await self._calls.upstream.identify(self._service, context)
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
            if self._route.verb == "PUT" and not body.strip():
                raise _no_body("the object that replaces the stored one")
            work = convert(len(body), lambda: decode(method.request, parse_json(body)))
            is_long = len(body) > LARGE_BYTES
            message = await (unless_gone(request, work) if is_long else work)
        else:
            message = method.request()
            _set_query(message, request)
        for name, value in request.path_params.items():
            set_field(message, name, value)
        return message

    async def _stream_in(self, request: Request, method: Method, context: CallContext) -> Response:
        batches = self._rows(request) if self._route.rows else self._lines(request, method)

        is_read = asyncio.Event()

        async def messages() -> AsyncIterator[Message]:
            async for inner in batches:
                for name, value in request.path_params.items():
                    set_field(inner, name, value)
                message: Any = method.request()
                message.request.MergeFrom(inner)
                yield message
            is_read.set()

        if not self._streams_out:
            return await _json(*await method.one(messages(), context))
        replies = method.many(messages(), context)
        first = await anext(replies, None)

        async def lines() -> AsyncIterator[bytes]:
            with contextlib.suppress(ClientDisconnect):
                async for reply in begun(first, replies):
                    yield orjson.dumps(encode(_event_of(reply)[1])) + b"\n"

        return _TwoWayResponse(lines(), is_read)

    async def _lines(self, request: Request, method: Method) -> AsyncIterator[Message]:
        """Yields the message of each line of a body."""
        kind = type(method.request().request)  # type: ignore[attr-defined]
        number = 0
        async for number, line in read_lines(request, self._calls.settings.max_body_bytes):
            yield decode(kind, parse_json(line), f"line {number}")
        if not number:
            raise _no_body("a line of JSON per message")

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


def _no_body(wanted: str) -> InvalidRequest:
    return InvalidRequest(
        f"the request has no body; send {wanted}, {{}} for an empty one", field="body"
    )


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
    rejected, changes = _rejected(reply)
    more = {"rejected": rejected} if changes else {}
    body = await convert(reply.ByteSize(), lambda: orjson.dumps(more | encode(reply)))
    headers = {name: str(value) for name, value in trailers if name == _RATE_LIMIT}
    # A client that looks at the status alone sees that nothing was written; no engine of the field
    # repeats a 422, and 207 is a success, as a bulk request with errors is for Elasticsearch.
    status = 200 if not rejected else 422 if rejected == changes else 207
    return Response(body, status, media_type="application/json", headers=headers)


def _rejected(reply: Any) -> tuple[int, int]:
    """Returns how many changes of a write were rejected, of how many; 0 of 0 if it is no write."""
    if isinstance(reply, _Written):
        outcomes = [one.outcome for one in reply.results]
        return outcomes.count(retrieval_pb2.WriteResult.OUTCOME_REJECTED), len(outcomes)
    if isinstance(reply, _StreamWritten):
        return reply.rejected, sum(one for _, one in reply.ListFields() if isinstance(one, int))
    return 0, 0
