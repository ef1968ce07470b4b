"""The services behind the gateway, and how a request is passed on to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, Self, TypeAlias
from zlib import crc32

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import BytesValue

from gateway.settings import GatewaySettings
from nearline import status
from nearline.channel import ServiceChannel, observed_call, send_requests
from nearline.channel_security import ChannelSecurity
from nearline.errors import InvalidRequest, NearlineError, SettingsError, Unsupported
from nearline.tls import is_loopback
from nearline.v1 import admin_pb2, embedding_pb2, generation_pb2, ingest_pb2, retrieval_pb2

_MODULES = (retrieval_pb2, generation_pb2, admin_pb2, ingest_pb2, embedding_pb2)
# By name of the service.
SERVICES = {
    name: service
    for module in _MODULES
    for name, service in module.DESCRIPTOR.services_by_name.items()
}
# To each service. A connection has a bounded number of calls, and calls that are refused occupy it
# for a while, so callers have one by their credential: few share one with a caller that floods.
_CONNECTIONS: Final = 8
# Seconds for which a service is not asked again whether it knows a caller, and most such callers.
_KNOWN_S: Final = 60.0
_MOST_KNOWN: Final = 10_000
# A method of each service that no audit log has, and what cannot be decoded as its request,
# because it is not UTF-8 where that has a text.
_READS: Final = frozenset({"Search", "GetCollection", "GetSession", "GetJob", "Embed"})
_NO_REQUEST: Final = BytesValue(value=b"\xff")
Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
# One request, or a stream of them, as the method takes.
_Requests: TypeAlias = Message | AsyncIterator[Message]


class CallContext(NamedTuple):
    """The headers of a request, as gRPC has them. timeout_s: Seconds that it may take."""

    metadata: Metadata
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service, ready to be called.

    request, reply: Classes of its messages.
    """

    name: str
    request: type[Message]
    reply: type[Message]
    _calls: Sequence[Any]
    _address: str

    def _call(self, context: CallContext) -> Any:
        """Returns the method on the connection of the caller."""
        credential = str(dict(context.metadata).get("authorization", ""))
        return self._calls[crc32(credential.encode()) % len(self._calls)]

    async def one(self, request: _Requests, context: CallContext) -> tuple[Message, Metadata]:
        """Sends a request; returns the reply and the trailers.

        Raises: Any NearlineError, also one with which a stream of requests ends.
        """
        method = self._call(context)
        with observed_call(self.request):
            return await self._one(method, request, context)

    async def _one(
        self, method: Any, request: _Requests, context: CallContext
    ) -> tuple[Message, Metadata]:
        try:
            async with _begun(method, request, context) as call:
                return await call, tuple(await call.trailing_metadata() or ())
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    async def many(self, request: _Requests, context: CallContext) -> AsyncGenerator[Message, None]:
        """Sends a request; yields the replies. Raises: as `one`."""
        with observed_call(self.request):
            async for reply in self._many(request, context):
                yield reply

    async def _many(
        self, request: _Requests, context: CallContext
    ) -> AsyncGenerator[Message, None]:
        try:
            async with _begun(self._call(context), request, context) as call:
                while (reply := await call.read()) is not grpc.aio.EOF:
                    yield reply
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    def _error(self, error: grpc.aio.AioRpcError) -> NearlineError:
        return status.from_rpc_error(error, self._address)


@contextlib.asynccontextmanager
async def _begun(method: Any, request: _Requests, context: CallContext) -> AsyncIterator[Any]:
    """Yields the call of a method, which ends with the block; a stream is sent meanwhile.

    Raises: An error with which a stream of requests ends.
    """
    sending: asyncio.Task[None] | None = None
    if isinstance(request, Message):
        call = method(request, timeout=context.timeout_s, metadata=context.metadata)
    else:
        # Writing takes as long as its caller sends, or until the service ends the call.
        call = method(metadata=context.metadata)
        sending = asyncio.create_task(send_requests(call, request))
    try:
        yield call
        if sending is not None:
            await sending
    except asyncio.CancelledError:
        if sending is not None and sending.done() and not sending.cancelled():
            # A request could not be read, and the sender has cancelled the call.
            if (failed := sending.exception()) is not None:
                raise failed from None
        raise
    finally:
        call.cancel()
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


class Upstream:
    """Channels to the services; a service without an address has no methods.

    The gateway itself has no credential: it passes on that of its caller.

    Args:
        addresses: By name of the service, host:port; empty for none.
    """

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._channels = {
            address: [
                ServiceChannel(address, token="", own_connection=True) for _ in range(_CONNECTIONS)
            ]
            for address in dict.fromkeys(addresses.values())
            if address
        }
        self._methods: dict[tuple[str, str], Method] = {}
        # When to ask again, by service and credential.
        self._known: dict[tuple[str, str], float] = {}

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """Returns the services that settings name.

        Raises: SettingsError: credentials of callers would travel unencrypted to another machine.
        """
        _check_encryption(settings)
        return cls(
            {
                "RetrievalService": settings.retrieval,
                "AdminService": settings.retrieval,
                "GenerationService": settings.generation,
                "IngestService": settings.ingest,
                "EmbeddingService": settings.embedding,
            }
        )

    def method(self, service: str, name: str) -> Method:
        """Returns a method. Raises: Unsupported: its service has no address."""
        found = self._methods.get((service, name))
        if found is None:
            found = self._methods[service, name] = self._open(service, name)
        return found

    async def identify(self, service: str, context: CallContext) -> None:
        """Raises the error of a caller whom a service does not know, before a body is read.

        What a caller may do, the service decides in each call.
        """
        key, now = (service, str(dict(context.metadata).get("authorization"))), time.monotonic()
        if self._known.get(key, 0.0) > now:
            return
        (name,) = _READS.intersection(SERVICES[service].methods_by_name)
        # A service that knows the caller refuses what it cannot decode, and runs nothing.
        with contextlib.suppress(InvalidRequest):
            await self.method(service, name).one(_NO_REQUEST, context)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = now + _KNOWN_S

    def _open(self, service: str, name: str) -> Method:
        address = self._addresses.get(service, "")
        if not address:
            raise Unsupported(
                f"this gateway serves no {service}: start it with the address of one, such as "
                f"--{service.removesuffix('Service').lower()} HOST:PORT"
            )
        descriptor: MethodDescriptor = SERVICES[service].methods_by_name[name]
        channels = [one.grpc_channel for one in self._channels[address]]
        kind = ("stream" if descriptor.client_streaming else "unary") + (
            "_stream" if descriptor.server_streaming else "_unary"
        )
        request = GetMessageClass(descriptor.input_type)
        reply = GetMessageClass(descriptor.output_type)
        calls = [
            getattr(channel, kind)(
                f"/{SERVICES[service].full_name}/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=reply.FromString,
            )
            for channel in channels
        ]
        return Method(name, request, reply, calls, address)

    @property
    def services(self) -> Sequence[str]:
        """Names of the services that have an address."""
        return [name for name, address in self._addresses.items() if address]

    async def close(self) -> None:
        """Closes the channels."""
        for channel in chain.from_iterable(self._channels.values()):
            await channel.close()


def _check_encryption(settings: GatewaySettings) -> None:
    if settings.insecure or ChannelSecurity.choose("", None, os.environ).tls:
        return
    addresses = (settings.retrieval, settings.generation, settings.ingest, settings.embedding)
    for address in addresses:
        if address and not is_loopback(address):
            raise SettingsError(
                f"credentials of callers would travel unencrypted to {address}: give TLS files "
                "(NEARLINE_TLS_CA), or --insecure (NEARLINE_INSECURE=true) if a network of your "
                "own protects it"
            )
