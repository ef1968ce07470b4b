"""What a client says with each call: its credential, its lane, and on whose behalf it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self, cast

import grpc

from nearline.access.delegation import delegation_of
from nearline.access.method_guard import delegated_caller
from nearline.contract import Lane
from nearline.errors import InvalidRequest, SettingsError
from nearline.tls import TlsFiles, channel_credentials, is_loopback

# Methods of a channel that make a method of a stub.
_KINDS = frozenset({"unary_unary", "unary_stream", "stream_unary", "stream_stream"})
# Metadata of a call: "bulk" if nobody waits for its answer.
LANE_KEY: Final = "nearline-lane"
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
            tls = TlsFiles(
                environ.get("NEARLINE_TLS_CERT", ""),
                environ.get("NEARLINE_TLS_KEY", ""),
                environ.get("NEARLINE_TLS_CA", ""),
            )
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
        channel: grpc.aio.Channel
        if (credentials := self.credentials) is not None:
            channel = grpc.aio.secure_channel(address, credentials, options)
        else:
            if self.token and not (self.insecure or is_loopback(address)):
                raise SettingsError(
                    f"the credential would travel unencrypted to {address}: give TLS files "
                    "(NEARLINE_TLS_CA), or set NEARLINE_INSECURE=true if a network of your own "
                    "protects it"
                )
            channel = grpc.aio.insecure_channel(address, options)
        metadata: _Metadata = ()
        if self.token:
            metadata += (("authorization", f"Bearer {self.token}"),)
        if lane is Lane.BULK:
            metadata += ((LANE_KEY, lane.value),)
        if not metadata:
            return channel
        return cast(grpc.aio.Channel, _MetadataChannel(channel, metadata))


class _MetadataChannel:
    """A channel that adds metadata to each call, as `grpc.aio.Channel` does for stubs.

    Not a client interceptor: grpc.aio starts a task per interceptor and call.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: _Metadata) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        return partial(self._method, found) if name in _KINDS else found

    def _method(
        self,
        make: Callable[..., Any],
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> _Method:
        return _Method(make(method, request_serializer, response_deserializer), self._metadata)


class _Method:
    """A method of a channel, called with the metadata of this service or client."""

    def __init__(self, method: Callable[..., Any], metadata: _Metadata) -> None:
        self._method = method
        self._own = metadata

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        wait_for_ready: bool | None = None,
    ) -> Any:
        own = self._own
        if (caller := delegated_caller()) is not None:
            own = (*own, delegation_of(caller))
        return self._method(
            *(() if request is None else (request,)),
            timeout=timeout,
            metadata=(*metadata, *own),
            wait_for_ready=wait_for_ready,
        )
