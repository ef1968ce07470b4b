"""MCP over streamable HTTP: `POST /mcp`, without sessions, so that any gateway answers any call."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from gateway.body import read_body
from gateway.mcp.tool_server import make_tool_server
from gateway.request_context import call_context
from gateway.settings import GatewaySettings
from gateway.upstream import CallContext, Upstream

PATH: Final = "/mcp"
# That clients in pages send, beside those of every path.
HEADERS: Final = ("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id")
# Of a message; the largest item has 2 MiB of text and attributes.
MAX_MESSAGE_BYTES: Final = 4 << 20


class McpEndpoint:
    """The endpoint.

    Args:
        upstream: The services, which get the credential of the request.
        settings: Limits.
    """

    def __init__(self, upstream: Upstream, settings: GatewaySettings) -> None:
        self._upstream, self._settings = upstream, settings
        self._limit = min(settings.max_body_bytes, MAX_MESSAGE_BYTES)

        def context_of(request: Request | None) -> CallContext:
            assert request is not None
            return call_context(request, settings)

        # A reply is one JSON object: no tool has anything to say before it ends.
        self._manager = StreamableHTTPSessionManager(
            make_tool_server(upstream, context_of),
            json_response=True,
            stateless=True,
            max_request_body_size=self._limit,
        )

    def running(self) -> AbstractAsyncContextManager[None]:
        """Returns a context in which requests are answered; it can be entered once."""
        return self._manager.run()

    async def __call__(self, request: Request) -> Response:
        """Answers a request. Raises: Unauthenticated. InvalidRequest: its body is too large."""
        context = call_context(request, self._settings)
        await self._upstream.identify("RetrievalService", context)
        return await _exchange(self._manager, request, await read_body(request, self._limit))


async def _exchange(
    manager: StreamableHTTPSessionManager, request: Request, body: bytes
) -> Response:
    """Returns the reply of the SDK to a request whose body has been read."""
    start: Message = {}
    parts: list[bytes] = []
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            return await request.receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            parts.append(message.get("body", b""))

    await manager.handle_request(request.scope, receive, send)
    response = Response(b"".join(parts), status_code=start["status"])
    response.raw_headers = [*start["headers"]]
    return response
