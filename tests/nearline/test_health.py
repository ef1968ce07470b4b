"""What the health command says of a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from nearline import health

States = health_pb2.HealthCheckResponse


@pytest.fixture(name="server")
def give_server() -> Iterator[tuple[str, HealthServicer]]:
    """Returns the address of a server, and what decides its state."""
    servicer = HealthServicer()
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", servicer
        server.stop(None).wait()


def test_only_a_server_that_serves_is_healthy_and_no_proxy_is_asked(
    server: tuple[str, HealthServicer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, servicer = server
    for name in ("http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert (health.main([address]), capsys.readouterr().err) == (0, "")
    servicer.set("", States.NOT_SERVING)
    assert health.main([address]) == 1
    assert f"{address} is NOT_SERVING: loading, draining" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["localhost"], ["localhost:x"], ["a:1", "b:2"]])
def test_anything_but_one_address_is_a_mistake_of_the_caller(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert health.main(arguments) == 2
    assert "usage: python -m nearline.health HOST:PORT" in capsys.readouterr().err


def test_a_server_that_is_away_is_named_with_the_reason() -> None:
    # No server listens at port 9 of the machine itself.
    assert health.check("127.0.0.1:9").startswith("127.0.0.1:9: UNAVAILABLE: ")
