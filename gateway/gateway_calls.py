"""Calls of services on behalf of a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from google.protobuf.message import Message
from starlette.requests import Request

from gateway.disconnect import unless_gone
from gateway.request_context import call_context
from gateway.settings import GatewaySettings
from gateway.upstream import CallContext, Upstream


@dataclass(frozen=True, slots=True)
class GatewayCalls:
    """Calls services with what a request says in its headers.

    upstream: The services. settings: Limits of a request.
    """

    upstream: Upstream
    settings: GatewaySettings

    def context(self, request: Request) -> CallContext:
        """Returns what a request says beside its body."""
        return call_context(request, self.settings)

    async def one(self, request: Request, service: str, name: str, message: Message) -> Message:
        """Returns the reply of a method. Raises: Any NearlineError. ClientGone."""
        method = self.upstream.method(service, name)
        reply, _ = await unless_gone(request, method.one(message, self.context(request)))
        return reply

    def many(
        self, request: Request, service: str, name: str, message: Message
    ) -> AsyncGenerator[Message, None]:
        """Yields the replies of a method. Raises: Any NearlineError."""
        return self.upstream.method(service, name).many(message, self.context(request))
