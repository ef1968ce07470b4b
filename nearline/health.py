"""Queries the gRPC health of a server: `python -m nearline.health HOST:PORT`.

For orchestrators that check health with a command; others use gRPC health checks directly. They
start it every few seconds in each container, and importing takes most of its time: it imports
little, and late.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

TIMEOUT_S = 3.0


class ServiceHealth(NamedTuple):
    """Health of a service at an address.

    is_known: Whether the server has the service, serving or not. why: Why it does not serve; empty
    if it does.
    """

    is_known: bool
    why: str


def check(address: str, timeout_s: float = TIMEOUT_S) -> str:
    """Queries the overall health of a server once; returns why it does not serve, or nothing."""
    return query(address, timeout_s).why


def query(address: str, timeout_s: float = TIMEOUT_S, service: str = "") -> ServiceHealth:
    """Queries the health of a server once, over TLS if NEARLINE_TLS_CA is set.

    Args:
        service: Full name of a service of it. Optional; empty asks for its overall health.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from nearline.tls import TlsFiles, channel_credentials

    files = TlsFiles.of_client(os.environ)
    credentials = channel_credentials(files) if files else None
    options = (("grpc.enable_http_proxy", 0),)
    with (
        grpc.secure_channel(address, credentials, options)
        if credentials
        else grpc.insecure_channel(address, options)
    ) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return ServiceHealth(False, f"{address}: {error.code().name}: {error.details()}")
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return ServiceHealth(True, "")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return ServiceHealth(
        True, f"{address} is {name}: loading, draining, or missing a dependency; see its log"
    )


def main(
    argv: Sequence[str],
    ask: Callable[[str], str] = check,
    module: str = "nearline.health",
) -> int:
    """Returns the exit code: 0 if the server serves, 1 if not, 2 for bad arguments.

    Args:
        argv: The address of the server.
        ask: Returns why it does not serve; an empty string if it does.
        module: Name of the program, for its usage.
    """
    if len(argv) != 1 or not argv[0].rpartition(":")[2].isdigit():
        print(f"usage: python -m {module} HOST:PORT", file=sys.stderr)
        return 2
    why = ask(argv[0])
    if why:
        print(why, file=sys.stderr)
    return int(bool(why))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
