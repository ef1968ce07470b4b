"""How the gateway starts, what it refuses, and how it is asked for its health."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from gateway import health, http_server
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from nearline.errors import SettingsError
from nearline_cli.local.certificates import CertificateAuthority
from nearline_cli.local.processes import free_port, service_process
from tests.gateway import gateways


@pytest.mark.parametrize("service", ["retrieval", "generation", "ingest", "embedding"])
def test_credentials_do_not_travel_unencrypted_to_another_machine(service: str) -> None:
    settings = GatewaySettings.load({service: "router.example:7700"})
    with pytest.raises(SettingsError, match=r"unencrypted to router.example:7700: give TLS files"):
        Upstream.of(settings)


async def test_they_do_where_a_network_of_ones_own_protects_them() -> None:
    settings = GatewaySettings.load({"retrieval": "router.example:7700", "insecure": True})
    await Upstream.of(settings).close()


@pytest.mark.service
async def test_a_gateway_with_tls_is_healthy_whatever_name_its_certificate_has(
    tmp_path: Path,
) -> None:
    certificate, key = CertificateAuthority(tmp_path).issue("nearline", ["shop.example"])
    serving = gateways.gateway(tls_cert=str(certificate), tls_key=str(key))
    async with serving as (client, _):
        address = client.base_url.netloc.decode()
        assert await asyncio.to_thread(health.check, address) == ""


@pytest.mark.service
async def test_a_gateway_that_knows_the_authority_of_clients_serves_only_those_with_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority(tmp_path / "ours")
    stranger = CertificateAuthority(tmp_path / "other").issue("stranger", ["127.0.0.1"])
    own = authority.issue("gateway", ["127.0.0.1"])
    files: dict[str, Any] = {
        "tls_cert": str(own[0]),
        "tls_key": str(own[1]),
        "tls_client_ca": str(authority.file),
    }
    async with gateways.gateway(**files) as (client, _):
        address = client.base_url.netloc.decode()
        found = []
        for shown in (None, stranger, own):
            if shown:
                monkeypatch.setenv("NEARLINE_TLS_CERT", str(shown[0]))
                monkeypatch.setenv("NEARLINE_TLS_KEY", str(shown[1]))
            found.append(await asyncio.to_thread(health.check, address))
    assert (bool(found[0]), bool(found[1]), found[2]) == (True, True, "")


async def test_a_gateway_without_tls_cannot_ask_for_certificates(tmp_path: Path) -> None:
    authority = str(CertificateAuthority(tmp_path).file)
    environ = {"NEARLINE_TLS_CLIENT_CA": authority}
    settings = GatewaySettings.load({"port": 0}, environ)
    with pytest.raises(SettingsError, match="TLS needs a certificate and its key"):
        async with http_server.serving(Starlette(), settings):
            pass
    # One for all services, but not for this one.
    off = {**environ, "NEARLINE_GATEWAY_TLS_CLIENT_CA": ""}
    async with http_server.serving(Starlette(), GatewaySettings.load({"port": 0}, off)):
        pass


@pytest.mark.service
async def test_a_gateway_is_asked_for_its_health_and_ends_by_a_signal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    assert health.main([address]) == 1
    assert address in capsys.readouterr().err
    async with service_process("gateway", ("--port", str(port)), ready_services=()) as gateway:
        assert gateway.address == address
        assert health.main([address]) == 0
        assert await gateway.stop(10.0) == 0


def test_health_without_an_address_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main([]) == 2
    assert "HOST:PORT" in capsys.readouterr().err
