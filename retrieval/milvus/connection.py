"""Connection to Milvus: reconnects automatically and translates errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import pymilvus
from pymilvus.client import ts_utils

from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    NearlineError,
    NotReady,
    Overloaded,
    SettingsError,
    SnapshotGone,
)

# Timeout for creating, loading and dropping collections, in seconds.
MANAGE_S = 600.0
_CONNECT_S = 5.0
_PROBE_S = 0.5
_RETRY_AFTER_S = 1.0
_NO_COLLECTION, _RATE_LIMIT = 100, 8
# Error codes of a server that is starting, is moving a collection to another node, or has not
# loaded it: service, collection, partition, replica, channel and node errors of Milvus.
_NOT_READY_CODES = frozenset(
    {1, 2, 3, 5, 101, 102, 103, 104, 106, 201, 202, 400, 401, 500, 502, 503, 901}
)
# Errors without such a code, from a server whose components are still connecting after a start.
_UNEXPECTED, _NODE_NOT_FOUND = 65_535, 901
_NODE_MOVING = re.compile(r"node not (match|found)|session not found|client connection is closing")
_OUTAGE_CODES = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"})
_CLIENT_PREFIX = re.compile(r"^\[\w+\] Retry[^,]*, (?:message=)?|^<[^>]*>")
# By default pymilvus sends a ping every 10 s, even without calls. A server with gRPC's defaults,
# such as Lite, accepts one every 5 minutes and closes connections that send more ("too many
# pings"). The timeout of each call detects a server that does not answer.
_CHANNEL_OPTIONS = {"grpc.keepalive_time_ms": 310_000, "grpc.keepalive_permit_without_calls": 0}
_R = TypeVar("_R")
_log = logging.getLogger(__name__)
# pymilvus logs a traceback for every error that it also raises.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class MilvusConnection:
    """A connection to a Milvus server; belongs to one event loop.

    During an outage every call fails at once, while a background task tries to reconnect twice a
    second. Calls raise NotReady if the server is unreachable or starting, DeadlineExceeded,
    Overloaded, SnapshotGone if the collection does not exist, SettingsError if the credentials are
    rejected, and InternalError for any other error.

    Args:
        uri: "http://host:port", "https://host:port", or a file that ends in .db for Milvus Lite.
        token: "user:password" or an API key; empty for no authentication.
        timeout_s: Default timeout of a call, in seconds.
    """

    def __init__(self, uri: str, token: str, *, timeout_s: float) -> None:
        self.uri = uri
        self._token = token
        self._timeout_s = timeout_s
        self._client: pymilvus.AsyncMilvusClient | None = None
        self._manager: pymilvus.MilvusClient | None = None
        self._connecting = asyncio.Lock()
        self._version = ""
        self._outage = ""
        self._reconnecting: asyncio.Task[None] | None = None

    @property
    def outage(self) -> str:
        """Why the server does not answer; empty while no outage is known."""
        return self._outage

    async def version(self) -> str:
        """Returns the version of the server, queried once per connection."""
        if not self._version:
            version = await self.call(lambda client: client.get_server_version(retry_times=0))
            self._version = str(version)
        return self._version

    def last_write(self, name: str) -> int:
        """Returns the timestamp of the last write; 0, for which reads wait for all, if unknown."""
        handler = getattr(self._client, "_handler", None)
        address = getattr(handler, "server_address", "")
        return int(ts_utils.get_collection_ts(name, address) or 0)

    async def call(
        self,
        request: Callable[[pymilvus.AsyncMilvusClient], Awaitable[_R]],
        timeout_s: float | None = None,
        *,
        write: bool = False,
    ) -> _R:
        """Makes a call with the asyncio client.

        Args:
            request: Makes the call; pymilvus must not retry it (`retry_times=0`).
            timeout_s: Timeout in seconds; None uses the default of the connection.
            write: Whether the call writes, for the text of a timeout: the write may still happen.
        """
        if self._outage:
            raise self._not_ready(self._outage)
        limit = self._timeout_s if timeout_s is None else timeout_s
        try:
            # With a timeout, pymilvus retries until it expires; without one, 75 times.
            async with asyncio.timeout(limit):
                return await request(self._client or await self._connected_client())
        except TimeoutError as error:
            action = "confirmed the write" if write else "answered"
            raise DeadlineExceeded(
                f"Milvus at {self.uri} has not {action} within {limit:g} s"
            ) from error
        except (pymilvus.MilvusException, grpc.RpcError) as error:
            raise self._translate(error) from error

    async def manage(self, request: Callable[[pymilvus.MilvusClient], _R]) -> _R:
        """Makes calls with the synchronous client in a thread; each call must set a `timeout`."""
        if self._outage:
            raise self._not_ready(self._outage)
        try:
            return await asyncio.to_thread(self._run_managed, request)
        except (pymilvus.MilvusException, grpc.RpcError) as error:
            raise self._translate(error) from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait((self._reconnecting,))
        await self._disconnect()
        if self._manager is not None:
            await asyncio.to_thread(self._manager.close)
            self._manager = None

    def _run_managed(self, request: Callable[[pymilvus.MilvusClient], _R]) -> _R:
        if self._manager is None:
            self._manager = pymilvus.MilvusClient(
                self.uri,
                token=self._token,
                timeout=_CONNECT_S,
                dedicated=True,
                grpc_options=_CHANNEL_OPTIONS,
            )
        return request(self._manager)

    async def _connected_client(self) -> pymilvus.AsyncMilvusClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> pymilvus.AsyncMilvusClient:
        client = pymilvus.AsyncMilvusClient(
            self.uri,
            token=self._token,
            timeout=_CONNECT_S,
            dedicated=True,
            grpc_options=_CHANNEL_OPTIONS,
        )
        await client._connect()
        return client

    def _translate(self, error: Exception) -> NearlineError:
        code, reason = _parse_error(error)
        if code == _NO_COLLECTION:
            return SnapshotGone(
                f"Milvus at {self.uri} lacks the collection ({reason}); retry the whole request"
            )
        if code == _RATE_LIMIT or code == "RESOURCE_EXHAUSTED":
            return Overloaded(
                f"Milvus at {self.uri} is overloaded ({reason})", retry_after_s=_RETRY_AFTER_S
            )
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return SettingsError(
                f"Milvus at {self.uri} rejects the credentials ({reason}); correct --milvus-token"
            )
        if code in _OUTAGE_CODES:
            self._start_reconnecting(reason)
            return self._not_ready(reason)
        if code in _NOT_READY_CODES:
            return self._not_ready(reason)
        return InternalError(f"Milvus at {self.uri} failed: {reason}")

    def _not_ready(self, reason: str) -> NotReady:
        # Without retry_after_s: gRPC clients would wait for that long, and a caller with a short
        # deadline would see DeadlineExceeded instead of the reason.
        return NotReady(
            f"Milvus at {self.uri} does not answer ({reason}); start it, or correct --milvus-uri"
        )

    def _start_reconnecting(self, reason: str) -> None:
        if self._outage:
            return
        self._outage = reason
        _log.warning("milvus is unreachable", extra={"uri": self.uri, "reason": reason})
        self._reconnecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        """Tries to connect until it succeeds; the backoff of the old channel would keep growing."""
        await self._disconnect()
        while True:
            await asyncio.sleep(_PROBE_S)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    client = await self._connect()
                    await client.get_server_version(retry_times=0)
            except (pymilvus.MilvusException, grpc.RpcError, TimeoutError):
                continue
            self._client, self._outage = client, ""
            _log.info("milvus is reachable again", extra={"uri": self.uri})
            return

    async def _disconnect(self) -> None:
        client, self._client, self._version = self._client, None, ""
        if client is not None:
            with contextlib.suppress(pymilvus.MilvusException, grpc.RpcError):
                await client.close()


def _parse_error(error: Exception) -> tuple[int | str, str]:
    """Returns the code of an error (a Milvus number or the name of a gRPC status) and its text."""
    if isinstance(error, grpc.RpcError):
        code = getattr(error, "code", None)
        status = code() if callable(code) else None
        details = getattr(error, "details", None)
        return getattr(status, "name", "UNKNOWN"), str(details() if callable(details) else error)
    assert isinstance(error, pymilvus.MilvusException)
    code = error.code
    if isinstance(code, grpc.StatusCode):
        return code.name, _strip_client_text(error.message)
    if "Fail connecting" in error.message or "connect" in type(error).__name__.lower():
        return "UNAVAILABLE", _strip_client_text(error.message)
    if code == _UNEXPECTED and _NODE_MOVING.search(error.message):
        return _NODE_NOT_FOUND, _strip_client_text(error.message)
    return code, _strip_client_text(error.message)


def _strip_client_text(text: str) -> str:
    """Returns the server's part of an error text, without the prefix that pymilvus adds."""
    lines = _CLIENT_PREFIX.sub("", text).strip().splitlines()
    if not lines:
        return "no reason given"
    # After a stack trace the reason is at the end of the last line.
    return lines[-1][-300:] if "stack trace" in lines[0] else lines[0][:300]
