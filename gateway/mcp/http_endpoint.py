"""MCP over streamable HTTP: `POST /mcp`, without sessions, so that any gateway answers any call."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final
from urllib.parse import urlsplit

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from gateway.body import read_body
from gateway.mcp.tool_server import make_tool_server
from gateway.request_context import call_context
from gateway.settings import GatewaySettings
from gateway.upstream import CallContext, Upstream
from nearline.errors import PermissionDenied
from nearline.tls import is_loopback

PATH: Final = "/mcp"
# That clients in pages send, beside those of every path.
HEADERS: Final = ("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id")
# Of a message; the largest item has 2 MiB of text and attributes.
MAX_MESSAGE_BYTES: Final = 4 << 20


class McpEndpoint:
    """The endpoint.

    Args:
        upstream: The services, which get the credential of the request.
        settings: Limits, and the origins whose pages may call.
    """

    def __init__(self, upstream: Upstream, settings: GatewaySettings) -> None:
        self._settings = settings
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
        """Answers a request.

        Raises: PermissionDenied: a page of another origin sent it. InvalidRequest: its body is too
            large.
        """
        self._check_origin(request)
        return await _exchange(self._manager, request, await read_body(request, self._limit))

    def _check_origin(self, request: Request) -> None:
        """Refuses pages of other origins, and names that others made stand for this machine.

        Source: the specification of the transport, "Security Warning" (DNS rebinding).
        """
        origins = self._settings.origins
        if "*" in origins:
            return
        host = request.headers.get("host", "")
        own = host in {urlsplit(one).netloc for one in origins}
        if is_loopback(self._settings.host) and not (own or is_loopback(host)):
            raise PermissionDenied(
                f"the header Host is {host!r}, and the gateway listens on "
                f"{self._settings.host} alone: call it by that address, or start it with "
                f"--allow-origins https://{host[:100]} if a proxy passes on requests",
                field="host",
            )
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins and urlsplit(origin).netloc != host:
            raise PermissionDenied(
                f"pages of {origin!r} may not call; start the gateway with --allow-origins "
                f"{origin[:100]} to let them",
                field="origin",
            )


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
