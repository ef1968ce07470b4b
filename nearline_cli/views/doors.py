"""Prints the two addresses behind which all services are."""

from __future__ import annotations

from nearline_cli.terminal import output


def print_doors(grpc: str, http: str) -> None:
    """Prints the addresses of a deployment.

    Args:
        grpc: Address of the router.
        http: URL of the gateway; empty for none.
    """
    if http:
        output.print_note(f"HTTP: {http} (see {http}/openapi.json)")
    output.print_note(f"gRPC: {grpc} (all services)")
