"""Connections to Redis over TLS, through a proxy that decrypts in front of a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from nearline.errors import SettingsError
from nearline_cli.local.certificates import CertificateAuthority
from retrieval.redis_client.connection import connect
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]
pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]


@contextlib.asynccontextmanager
async def decrypting(redis_url: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Runs the proxy for the length of the block; gives its address."""
    _, _, address = redis_url.partition("://")
    host, _, port = address.partition("/")[0].rpartition(":")
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(host, int(port))
        for one in (pump(reader, behind[1]), pump(behind[0], writer)):
            pumps.add(asyncio.create_task(one))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for one in pumps:
            one.cancel()
        await asyncio.gather(*pumps)


async def answers(url: str) -> bool:
    client = connect(url, timeout_s=10.0, retries=0)
    try:
        return bool(await client.ping())
    except RedisConnectionError:
        return False
    finally:
        await client.aclose()


async def test_both_sides_show_certificates_of_the_environment_or_of_the_url(
    shared_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (CertificateAuthority(tmp_path / name) for name in ("ours", "theirs"))
    certificate, key = ours.issue("redis", ["127.0.0.1"])
    own, own_key = ours.issue("router", ["router"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ours.file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"NEARLINE_TLS_{name}", raising=False)
    async with decrypting(shared_redis, context) as address:
        assert not await answers(f"redis://{address}/0")
        # The authorities of the system do not know it.
        assert not await answers(f"rediss://{address}/0")
        monkeypatch.setenv("NEARLINE_TLS_CA", str(ours.file))
        assert not await answers(f"rediss://{address}/0")
        monkeypatch.setenv("NEARLINE_TLS_CERT", str(own))
        monkeypatch.setenv("NEARLINE_TLS_KEY", str(own_key))
        assert await answers(f"rediss://{address}/0")
        assert not await answers(f"rediss://{address}/0?ssl_ca_certs={theirs.file}")


async def test_a_password_travels_encrypted_or_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        SettingsError, match=r"unencrypted to 192\.0\.2\.1: use rediss://"
    ) as caught:
        connect("redis://:secret@192.0.2.1:6379/0")
    assert "secret" not in caught.value.message
    connect("redis://192.0.2.1:6379/0")
    connect("rediss://:secret@192.0.2.1:6379/0")
    connect("redis://:secret@127.0.0.1:6379/0")
    monkeypatch.setenv("NEARLINE_INSECURE", "true")
    connect("redis://:secret@192.0.2.1:6379/0")


@pytest.mark.parametrize(
    "url",
    [
        "redis://192.0.2.1:6379/0?password=secret",
        "redis://:sec/ret@192.0.2.1:6379/0",
        "redis://:sec@ret@192.0.2.1:6379/0",
        "redis://192.0.2.1:port/0?password=secret",
    ],
)
async def test_a_password_is_found_wherever_it_stands_and_never_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(url)
    assert not {"sec", "ret", "secret"} & set(re.findall(r"\w+", caught.value.message))
