"""Asks a server for its gRPC health: `python -m nearline.health HOST:PORT`; 0 if it serves.

For orchestrators that run a command; those that speak gRPC health ask the server themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3.0


def check(address: str, timeout_s: float = TIMEOUT_S) -> str:
    """Asks once for the health of the server as a whole.

    Returns: Empty where it serves, else why not.
    """
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return f"{address}: {error.code().name}: {error.details()}"
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return f"{address} is {name}: loading, draining, or without what it needs; see its log"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 it serves, 1 it does not, 2 bad arguments."""
    if len(argv) != 1 or not argv[0].rpartition(":")[2].isdigit():
        print("usage: python -m nearline.health HOST:PORT", file=sys.stderr)
        return 2
    why = check(argv[0])
    if why:
        print(why, file=sys.stderr)
    return int(bool(why))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
