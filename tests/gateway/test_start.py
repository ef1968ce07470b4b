"""How the gateway starts, what it refuses, and how it is asked for its health."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway import health
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
