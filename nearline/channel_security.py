"""Metadata of a client's calls: its credential, its lane, and the caller it acts for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self, cast

import grpc

from nearline.access.delegation import delegation_of
from nearline.access.method_guard import delegated_caller
from nearline.contract import Lane
from nearline.errors import InvalidRequest, SettingsError
from nearline.tls import TlsFiles, channel_credentials, is_loopback, watch_files

_log = logging.getLogger(__name__)
# Methods of a channel that make a method of a stub.
_KINDS = frozenset({"unary_unary", "unary_stream", "stream_unary", "stream_stream"})
# Metadata of a call: "bulk" if nobody waits for its answer.
LANE_KEY: Final = "nearline-lane"
# Calls on a connection whose certificates were replaced may take this long.
_LAST_CALLS_S: Final = 3_600.0
_Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class ChannelSecurity:
    """The credential and the TLS files of a client.

    token: An API key, or a JSON Web Token; empty sends none.
    tls: TLS is used if it names a file.
    insecure: Whether a credential may travel unencrypted to another machine.
    Raises: InvalidRequest: the token has characters that a header cannot carry.
    """

    token: str = field(default="", repr=False)
    tls: TlsFiles = field(default_factory=TlsFiles)
    insecure: bool = False

    def __post_init__(self) -> None:
        if not (self.token.isascii() and self.token.isprintable()):
            raise InvalidRequest(
                "the token has characters other than printable ASCII; check how it was copied",
                field="token",
            )

    @classmethod
    def choose(cls, token: str | None, tls: TlsFiles | None, environ: Mapping[str, str]) -> Self:
        """Returns what is given and, for what is None, what the environment says.

        Args:
            environ: NEARLINE_TOKEN, NEARLINE_TLS_CA, NEARLINE_TLS_CERT, NEARLINE_TLS_KEY, and
                NEARLINE_INSECURE, which is "true" or "1".
        """
        if tls is None:
            tls = TlsFiles.of_client(environ)
        return cls(
            environ.get("NEARLINE_TOKEN", "") if token is None else token,
            tls,
            environ.get("NEARLINE_INSECURE", "").lower() in ("true", "1"),
        )

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS for a channel; None for none. Raises: SettingsError: a file cannot be read."""
        return channel_credentials(self.tls) if self.tls else None

    def open_channel(
        self, address: str, options: Sequence[tuple[str, Any]], lane: Lane = Lane.INTERACTIVE
    ) -> grpc.aio.Channel:
        """Returns a channel whose calls carry the credential and the lane.

        Raises: SettingsError: a TLS file cannot be read, or the credential would travel
            unencrypted.
        """
        if not self.tls and self.token and not (self.insecure or is_loopback(address)):
            raise SettingsError(
                f"the credential would travel unencrypted to {address}: give TLS files "
                "(NEARLINE_TLS_CA), or set NEARLINE_INSECURE=true if a network of your own "
                "protects it"
            )
        metadata: _Metadata = ()
        if self.token:
            metadata += (("authorization", f"Bearer {self.token}"),)
        if lane is Lane.BULK:
            metadata += ((LANE_KEY, lane.value),)
        if not (metadata or self.tls):
            return grpc.aio.insecure_channel(address, options)

        def connect() -> grpc.aio.Channel:
            if (credentials := self.credentials) is not None:
                return grpc.aio.secure_channel(address, credentials, options)
            return grpc.aio.insecure_channel(address, options)

        return cast(grpc.aio.Channel, _SecuredChannel(connect, self.tls, metadata))


class _SecuredChannel:
    """A channel that adds metadata to each call, as `grpc.aio.Channel` does for stubs.

    Once a TLS file has changed, calls take a new connection. Those in flight end on the old one.
    Not a client interceptor: grpc.aio starts a task per interceptor and call.

    Args:
        connect: Opens the connection.
        tls: The files that it reads.
        metadata: Metadata of each call.
    """

    def __init__(
        self, connect: Callable[[], grpc.aio.Channel], tls: TlsFiles, metadata: _Metadata
    ) -> None:
        self.metadata = metadata
        self._connect = connect
        self._files = watch_files(tls) if tls else None
        self._seen = None if self._files is None else self._files.contents
        self._channel = connect()
        # Connections that end with their last calls, and what waits for that.
        self._replaced: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def current(self) -> grpc.aio.Channel:
        """Returns the connection for the next call."""
        if self._files is not None and (found := self._files.current()) is not self._seen:
            changed, self._seen = found != self._seen, found
            if changed:
                self._reconnect()
        return self._channel

    def _reconnect(self) -> None:
        try:
            channel = self._connect()
        except SettingsError as error:
            # Perhaps the key of a new certificate is yet to come.
            _log.error("new certificates cannot be used", extra={"reason": error.message})
            return
        closing = asyncio.ensure_future(self._channel.close(_LAST_CALLS_S))
        self._replaced[closing] = self._channel
        closing.add_done_callback(lambda ended: self._replaced.pop(ended, None))
        self._channel = channel

    async def close(self, grace: float | None = None) -> None:
        """Closes all connections; see `grpc.aio.Channel.close`."""
        for channel in (self._channel, *self._replaced.values()):
            await channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Any:
        return partial(_Method, self, name) if name in _KINDS else getattr(self._channel, name)


class _Method:
    """A method of a channel, called with the metadata of this service or client."""

    def __init__(
        self,
        owner: _SecuredChannel,
        kind: str,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> None:
        self._owner = owner
        self._kind = kind
        self._arguments = (method, request_serializer, response_deserializer)
        self._channel: grpc.aio.Channel | None = None
        self._method: Callable[..., Any]

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        wait_for_ready: bool | None = None,
    ) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._method = getattr(channel, self._kind)(*self._arguments)
            self._channel = channel
        own = self._owner.metadata
        if (caller := delegated_caller()) is not None:
            own = (*own, delegation_of(caller))
        return self._method(
            *(() if request is None else (request,)),
            timeout=timeout,
            metadata=(*metadata, *own),
            wait_for_ready=wait_for_ready,
        )
