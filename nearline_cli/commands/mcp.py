"""`nearline mcp`: tools for agents over the Model Context Protocol."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from nearline.channel_security import ChannelSecurity
from nearline.errors import InvalidRequest, SettingsError
from nearline_cli.terminal import options, output


def mcp(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    generation: Annotated[
        str | None,
        typer.Option(
            "--generation",
            metavar="HOST:PORT",
            help='Address of the generation service; "" for none. \\[default: --address]',
        ),
    ] = None,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    token: options.TokenOption = "",
    timeout: options.TimeoutOption = options.LONG_TIMEOUT,
) -> None:
    """Offer search, recommendation, answers and memory to an agent, over MCP on stdin and stdout.

    For example, in the settings of a client: {"mcpServers": {"nearline": {"command": "nearline",
    "args": ["mcp"]}}}

    Agents that speak HTTP need no command: the gateway of `nearline up` serves MCP at /mcp.
    """
    try:
        # Imported late: the SDK takes a second, and is installed with the gateway alone.
        from gateway.mcp.stdio import serve_stdio
        from gateway.settings import GatewaySettings
        from gateway.upstream import Upstream
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"nearline mcp needs a package that is not installed ({error.name}); run pip install "
            "'nearline-server[gateway]'"
        ) from error
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise InvalidRequest(f"--address is {address!r}; give HOST:PORT, such as 127.0.0.1:7700")
    security = ChannelSecurity.choose(token, None, os.environ)
    services = {
        "retrieval": address,
        "generation": address if generation is None else generation,
        # Without a token, nothing that is secret travels.
        "insecure": security.insecure or not token,
    }

    async def serve() -> None:
        upstream = Upstream.of(GatewaySettings.load(services))
        try:
            await serve_stdio(upstream, token, timeout, collection)
        finally:
            await upstream.close()

    output.print_note(f"nearline mcp: tools of {address} on stdin and stdout, for an MCP client")
    asyncio.run(serve())
