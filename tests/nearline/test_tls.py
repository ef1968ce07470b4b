"""Servers and clients over TLS: who is let in, and certificates that change while they run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline.errors import SettingsError
from nearline.tls import (
    TlsFiles,
    certificate_expiry,
    channel_credentials,
    is_loopback,
    server_credentials,
)
from nearline_cli.local.certificates import CertificateAuthority

pytestmark = pytest.mark.service


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=1)


@contextlib.asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[str]:
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def answers(address: str, files: TlsFiles) -> bool:
    """Returns whether a new connection is let in."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(address, channel_credentials(files), options) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            return bool(reply.status == 1)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False


def shown_serial(address: str, authority: Path) -> int:
    """Returns the serial number of the certificate that a server shows."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 5) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        return int(str((secured.getpeercert() or {})["serialNumber"]), 16)


async def test_only_a_certificate_of_the_right_authority_is_trusted(tmp_path: Path) -> None:
    ours, theirs = (CertificateAuthority(tmp_path / name) for name in ("ours", "theirs"))
    certificate, key = ours.issue("router", ["127.0.0.1"])
    async with serving(TlsFiles(str(certificate), str(key))) as address:
        assert await answers(address, TlsFiles(authorities=str(ours.file)))
        assert not await answers(address, TlsFiles(authorities=str(theirs.file)))
    certificate, key = ours.issue("elsewhere", ["192.0.2.1", "elsewhere.example"])
    async with serving(TlsFiles(str(certificate), str(key))) as address:
        assert not await answers(address, TlsFiles(authorities=str(ours.file)))


async def test_with_an_authority_of_clients_only_they_are_let_in(tmp_path: Path) -> None:
    ours, theirs = (CertificateAuthority(tmp_path / name) for name in ("ours", "theirs"))
    certificate, key = ours.issue("router", ["127.0.0.1"])
    client, client_key = ours.issue("client", ["client"])
    stranger, stranger_key = theirs.issue("client", ["client"])
    trusted = str(ours.file)
    async with serving(TlsFiles(str(certificate), str(key), trusted)) as address:
        assert await answers(address, TlsFiles(str(client), str(client_key), trusted))
        assert not await answers(address, TlsFiles(str(stranger), str(stranger_key), trusted))
        assert not await answers(address, TlsFiles(authorities=trusted))


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.issue("router", ["127.0.0.1"])
    async with serving(TlsFiles(str(certificate), str(key))) as address:
        first = await asyncio.to_thread(shown_serial, address, authority.file)
        assert await asyncio.to_thread(shown_serial, address, authority.file) == first
        authority.issue("router", ["127.0.0.1"])
        second = await asyncio.to_thread(shown_serial, address, authority.file)
        assert second != first
        # Half-replaced files, and files that are gone, leave what there was.
        key.unlink()
        assert await asyncio.to_thread(shown_serial, address, authority.file) == second


def test_the_expiry_of_a_certificate_is_read(tmp_path: Path) -> None:
    certificate, key = CertificateAuthority(tmp_path).issue("router", ["127.0.0.1"], days=10)
    left_s = certificate_expiry(str(certificate)) - time.time()
    assert left_s == pytest.approx(10 * 86_400, abs=3_600)
    with pytest.raises(ValueError):
        certificate_expiry(str(key))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
async def test_old_versions_of_tls_are_refused(
    version: ssl.TLSVersion, accepted: bool, tmp_path: Path
) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.issue("router", ["127.0.0.1"])

    def connect(address: str) -> str | None:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.set_alpn_protocols(["h2"])
        # OpenSSL itself refuses old versions at its usual level of security.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 5) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            return secured.version()

    async with serving(TlsFiles(str(certificate), str(key))) as address:
        if accepted:
            assert await asyncio.to_thread(connect, address)
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(connect, address)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.issue("router", ["127.0.0.1"])
    _, other_key = authority.issue("other", ["127.0.0.1"])
    for make in (server_credentials, channel_credentials):
        with pytest.raises(SettingsError, match="NEARLINE_TLS_KEY"):
            make(TlsFiles(str(certificate)))
        with pytest.raises(SettingsError, match="cannot be used together"):
            make(TlsFiles(str(certificate), str(other_key)))
        with pytest.raises(SettingsError, match="no certificates of an authority"):
            make(TlsFiles(str(certificate), str(key), str(key)))
    with pytest.raises(SettingsError, match="NEARLINE_TLS_CERT"):
        channel_credentials(TlsFiles(key=str(key)))
    with pytest.raises(SettingsError, match="--tls-cert"):
        server_credentials(TlsFiles())
    with pytest.raises(SettingsError, match=r"absent\.pem cannot be read"):
        server_credentials(TlsFiles(str(tmp_path / "absent.pem"), str(key)))
    with pytest.raises(SettingsError, match="NEARLINE_TLS_CA"):
        channel_credentials(TlsFiles(authorities=str(tmp_path / "absent.pem")))


def test_an_authority_goes_on_where_it_was(tmp_path: Path) -> None:
    first = CertificateAuthority(tmp_path).file.read_bytes()
    assert CertificateAuthority(tmp_path).file.read_bytes() == first
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:7700", True),
        ("127.8.0.1:1", True),
        ("localhost:7700", True),
        ("::1", True),
        ("[::1]:7700", True),
        ("[::1]", True),
        ("dns:///localhost:7700", True),
        ("ipv4:127.0.0.1:7700", False),
        ("unix:/run/nearline.sock", True),
        ("0.0.0.0", False),
        ("::", False),
        ("[::]:7700", False),
        ("10.0.0.1:7700", False),
        ("router:7700", False),
        ("dns:///router.svc:7700", False),
        ("127.0.0.1.example.com:7700", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
