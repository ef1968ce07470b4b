"""Calls of services on behalf of a tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from gateway.conversion import convert
from gateway.json_encoder import encode
from gateway.upstream import CallContext, Upstream


@dataclass(frozen=True, slots=True)
class ServiceCalls:
    """Calls services with the credential and the time limit of one call of a tool.

    upstream: The services. context: Credential and time limit. collection: Used by tools that are
    called without one; empty for that of the services.
    """

    upstream: Upstream
    context: CallContext
    collection: str = ""

    async def one(self, service: str, name: str, message: Message) -> Any:
        """Returns the reply of a method. Raises: Any NearlineError."""
        reply, _ = await self.upstream.method(service, name).one(message, self.context)
        return reply

    def many(self, service: str, name: str, message: Message) -> AsyncGenerator[Any, None]:
        """Yields the replies of a method. Raises: Any NearlineError."""
        return self.upstream.method(service, name).many(message, self.context)


async def encoded(message: Message) -> dict[str, Any]:
    """Returns the JSON object of a message; see `gateway.json_encoder`."""
    return await convert(message.ByteSize(), lambda: encode(message))
