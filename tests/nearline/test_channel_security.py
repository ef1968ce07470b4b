"""Channels over TLS: certificates of clients that change while a channel is open."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline import watched_files
from nearline.channel_security import ChannelSecurity
from nearline.tls import TlsFiles, server_credentials
from nearline_cli.local.certificates import CertificateAuthority

pytestmark = pytest.mark.service
REQUEST = health_pb2.HealthCheckRequest()


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers once it may, and remembers who asked: the names in their certificates."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.seen: list[str] = []

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        names = context.auth_context()["x509_common_name"]
        self.seen.append(names[0].decode())
        await self.go.wait()
        return health_pb2.HealthCheckResponse(status=1)


@contextlib.asynccontextmanager
async def serving(health: Health, files: TlsFiles) -> AsyncIterator[str]:
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_a_channel_takes_up_new_certificates_and_ends_its_calls_on_the_old_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_files, "_LOOK_EVERY_S", 0.0)
    authority = CertificateAuthority(tmp_path)
    trusted = str(authority.file)
    certificate, key = authority.issue("server", ["127.0.0.1"])
    pairs = [authority.issue(name, [name]) for name in ("first", "second")]
    own = tmp_path / "own.pem", tmp_path / "own-key.pem"

    def use(*parts: int) -> None:
        """Replaces the certificate, the key or both."""
        for part in parts:
            shutil.copy(pairs[1][part], own[part])

    for part in (0, 1):
        shutil.copy(pairs[0][part], own[part])
    health = Health()
    async with serving(health, TlsFiles(str(certificate), str(key), trusted)) as address:
        security = ChannelSecurity("", TlsFiles(str(own[0]), str(own[1]), trusted))
        channel = security.open_channel(address, ())
        check: Any = health_pb2_grpc.HealthStub(channel).Check
        # Files that are written again with the same contents change nothing.
        before = channel.current()  # type: ignore[attr-defined]
        own[0].write_bytes(own[0].read_bytes())
        await check(REQUEST, timeout=10)
        assert channel.current() is before  # type: ignore[attr-defined]
        # A certificate whose key is yet to come is not used.
        use(0)
        await check(REQUEST, timeout=10)
        health.go.clear()
        waiting = asyncio.ensure_future(check(REQUEST, timeout=10))
        while len(health.seen) < 3:
            await asyncio.sleep(0)
        use(1)
        newer = asyncio.ensure_future(check(REQUEST, timeout=10))
        while len(health.seen) < 4:
            await asyncio.sleep(0)
        health.go.set()
        await asyncio.gather(waiting, newer)
        assert health.seen == ["first", "first", "first", "second"]
        await channel.close()
