"""A connection to a Milvus that comes back by itself, and how its refusals read."""

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

# Seconds for what makes, loads and drops collections.
MANAGE_S = 600.0
_CONNECT_S = 5.0
_PROBE_S = 0.5
_RETRY_AFTER_S = 1.0
_NO_COLLECTION, _RATE_LIMIT = 100, 8
# Codes of a server that starts, moves a collection to another node, or has not loaded it:
# service, collection, partition, replica, channel and node errors of Milvus' list.
_NOT_NOW = frozenset({1, 2, 3, 5, 101, 102, 103, 104, 106, 201, 202, 400, 401, 500, 502, 503, 901})
# What a server says without such a number while its parts look for one another after a start.
_UNEXPECTED, _NODE_NOT_FOUND = 65_535, 901
_MOVING = re.compile(r"node not (match|found)|session not found|client connection is closing")
_AWAY = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"})
_OF_THE_CLIENT = re.compile(r"^\[\w+\] Retry[^,]*, (?:message=)?|^<[^>]*>")
# By itself the client sends a ping every 10 s, with or without calls. A server of gRPC's defaults,
# such as Lite's, takes one in 5 minutes and closes the connection of who sends more ("too many
# pings"). Who does not answer is found by the limit of each call.
_CHANNEL = {"grpc.keepalive_time_ms": 310_000, "grpc.keepalive_permit_without_calls": 0}
_R = TypeVar("_R")
_log = logging.getLogger(__name__)
# It writes a page of traceback for every refusal, which is raised as well.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class MilvusConnection:
    """A connection to a Milvus; belongs to one event loop.

    While the server is away every call is refused at once, and somebody looks for it twice a
    second. Calls raise NotReady where it is away or starts, DeadlineExceeded, Overloaded,
    SnapshotGone where there is no such collection, and InternalError for any other refusal.

    Args:
        uri: "http://host:port", "https://host:port", or a file that ends in .db for Milvus Lite.
        token: "user:password" or an API key; empty: none.
        timeout_s: Seconds for a call that sets no limit.
    """

    def __init__(self, uri: str, token: str, *, timeout_s: float) -> None:
        self.uri = uri
        self._token = token
        self._timeout_s = timeout_s
        self._client: pymilvus.AsyncMilvusClient | None = None
        self._manager: pymilvus.MilvusClient | None = None
        self._connecting = asyncio.Lock()
        self._version = ""
        self._away = ""
        self._looking: asyncio.Task[None] | None = None

    @property
    def away(self) -> str:
        """Why the server does not answer; empty: it does, as far as is known."""
        return self._away

    async def version(self) -> str:
        """Returns the version of the server, asked once for each connection."""
        if not self._version:
            version = await self.ask(lambda client: client.get_server_version(retry_times=0))
            self._version = str(version)
        return self._version

    def written(self, name: str) -> int:
        """Returns the timestamp of the last write; 0, which has reads wait for all, if unknown."""
        handler = getattr(self._client, "_handler", None)
        address = getattr(handler, "server_address", "")
        return int(ts_utils.get_collection_ts(name, address) or 0)

    async def ask(
        self,
        call: Callable[[pymilvus.AsyncMilvusClient], Awaitable[_R]],
        timeout_s: float | None = None,
        *,
        write: bool = False,
    ) -> _R:
        """Carries out a call of the asyncio half.

        Args:
            call: The call; it must not try again by itself (`retry_times=0`).
            timeout_s: Seconds; None: as the connection was made.
            write: For the error: it may have been carried out all the same.
        """
        if self._away:
            raise self._not_ready(self._away)
        limit = self._timeout_s if timeout_s is None else timeout_s
        try:
            # The client's own limit would have it try again until then: 75 times without one.
            async with asyncio.timeout(limit):
                return await call(self._client or await self._connected())
        except TimeoutError as error:
            what = "carried out what it was asked to write" if write else "answered"
            raise DeadlineExceeded(f"Milvus at {self.uri} has not {what} in {limit:g} s") from error
        except (pymilvus.MilvusException, grpc.RpcError) as error:
            raise self._translated(error) from error

    async def manage(self, call: Callable[[pymilvus.MilvusClient], _R]) -> _R:
        """Carries out calls of the other half, in a thread; each must set a `timeout`."""
        if self._away:
            raise self._not_ready(self._away)
        try:
            return await asyncio.to_thread(self._managed, call)
        except (pymilvus.MilvusException, grpc.RpcError) as error:
            raise self._translated(error) from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        await self._let_go()
        if self._manager is not None:
            await asyncio.to_thread(self._manager.close)
            self._manager = None

    def _managed(self, call: Callable[[pymilvus.MilvusClient], _R]) -> _R:
        if self._manager is None:
            self._manager = pymilvus.MilvusClient(
                self.uri,
                token=self._token,
                timeout=_CONNECT_S,
                dedicated=True,
                grpc_options=_CHANNEL,
            )
        return call(self._manager)

    async def _connected(self) -> pymilvus.AsyncMilvusClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._new()
            return self._client

    async def _new(self) -> pymilvus.AsyncMilvusClient:
        client = pymilvus.AsyncMilvusClient(
            self.uri,
            token=self._token,
            timeout=_CONNECT_S,
            dedicated=True,
            grpc_options=_CHANNEL,
        )
        await client._connect()
        return client

    def _translated(self, error: Exception) -> NearlineError:
        code, said = _told(error)
        if code == _NO_COLLECTION:
            return SnapshotGone(
                f"Milvus at {self.uri} has no such collection ({said}); retry the whole request"
            )
        if code == _RATE_LIMIT or code == "RESOURCE_EXHAUSTED":
            return Overloaded(
                f"Milvus at {self.uri} refuses for now ({said})", retry_after_s=_RETRY_AFTER_S
            )
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return SettingsError(
                f"Milvus at {self.uri} refuses who asks ({said}); correct --milvus-token"
            )
        if code in _AWAY:
            self._look_for_it(said)
            return self._not_ready(said)
        if code in _NOT_NOW:
            return self._not_ready(said)
        return InternalError(f"Milvus at {self.uri} says: {said}")

    def _not_ready(self, said: str) -> NotReady:
        # Without a time to come back: gRPC would wait for that, and a caller in a hurry hear that
        # his time is up rather than why.
        return NotReady(
            f"Milvus at {self.uri} does not answer ({said}); start it, or correct --milvus-uri"
        )

    def _look_for_it(self, said: str) -> None:
        if self._away:
            return
        self._away = said
        _log.warning("milvus is away", extra={"uri": self.uri, "reason": said})
        self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        """Connects again until that works: a channel of old would wait longer and longer."""
        await self._let_go()
        while True:
            await asyncio.sleep(_PROBE_S)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    client = await self._new()
                    await client.get_server_version(retry_times=0)
            except (pymilvus.MilvusException, grpc.RpcError, TimeoutError):
                continue
            self._client, self._away = client, ""
            _log.info("milvus is back", extra={"uri": self.uri})
            return

    async def _let_go(self) -> None:
        client, self._client, self._version = self._client, None, ""
        if client is not None:
            with contextlib.suppress(pymilvus.MilvusException, grpc.RpcError):
                await client.close()


def _told(error: Exception) -> tuple[int | str, str]:
    """Returns the code of a refusal (Milvus' number, or the name of a gRPC status) and its text."""
    if isinstance(error, grpc.RpcError):
        code = getattr(error, "code", None)
        status = code() if callable(code) else None
        details = getattr(error, "details", None)
        return getattr(status, "name", "UNKNOWN"), str(details() if callable(details) else error)
    assert isinstance(error, pymilvus.MilvusException)
    code = error.code
    if isinstance(code, grpc.StatusCode):
        return code.name, _plain(error.message)
    if "Fail connecting" in error.message or "connect" in type(error).__name__.lower():
        return "UNAVAILABLE", _plain(error.message)
    if code == _UNEXPECTED and _MOVING.search(error.message):
        return _NODE_NOT_FOUND, _plain(error.message)
    return code, _plain(error.message)


def _plain(text: str) -> str:
    """Returns what a server says without what the client says about itself."""
    lines = _OF_THE_CLIENT.sub("", text).strip().splitlines()
    if not lines:
        return "no reason given"
    # Behind a stack trace the last line has the reason, at its end.
    return lines[-1][-300:] if "stack trace" in lines[0] else lines[0][:300]
