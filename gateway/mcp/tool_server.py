"""The MCP server: lists the tools and runs them, whichever transport brings a call."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from starlette.requests import Request

from gateway.disconnect import ClientGone, unless_gone
from gateway.mcp import answer_tools, retrieval_tools, write_tools
from gateway.mcp.service_calls import ServiceCalls
from gateway.mcp.service_tool import ServiceTool
from gateway.problem import problem
from gateway.request_context import REQUEST_ID
from gateway.upstream import CallContext, Upstream
from nearline import __version__
from nearline.errors import InternalError, NearlineError

_log = logging.getLogger(__name__)
_MAX_NAME: Final = 60
_INSTRUCTIONS: Final = (
    "Nearline searches, recommends and answers from the collections of its operator. Prefer ask "
    "for questions, since its citations can be checked, and search for finding items. Errors say "
    "what is wrong and what helps."
)
_TOOLS: Final = (*retrieval_tools.TOOLS, *answer_tools.TOOLS, *write_tools.TOOLS)


def make_tool_server(
    upstream: Upstream,
    context_of: Callable[[Request | None], CallContext],
    collection: str = "",
) -> Server[Any]:
    """Returns the server.

    Args:
        upstream: The services. Tools of services without an address are not offered.
        context_of: Returns the credential and the time limit of a call from its HTTP request,
            which is None over other transports.
        collection: Used by tools that are called without one; empty for that of the services.
    """
    tools = {tool.name: tool for tool in _TOOLS if tool.service in upstream.services}
    listed = ListToolsResult(tools=[tool.definition() for tool in tools.values()])
    schemas = {tool.name: tool.input_schema for tool in listed.tools}

    async def list_tools(context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            raise MCPError(
                INVALID_PARAMS,
                f"there is no tool {params.name[:_MAX_NAME]!r}; known are {', '.join(tools)}",
            )
        request: Request | None = context.request
        own_id = secrets.token_hex(8)
        try:
            called = context_of(request)
            own_id = str(dict(called.metadata).get(REQUEST_ID, own_id))
            work = _run(tool, ServiceCalls(upstream, called, collection), params.arguments or {})
            return await (work if request is None else unless_gone(request, work))
        except NearlineError as error:
            return _failed(error, own_id)
        except ClientGone:
            # Nobody reads it.
            raise MCPError(INTERNAL_ERROR, "the client has closed its connection") from None
        except Exception:
            _log.exception(
                "unexpected error in a tool", extra={"request_id": own_id, "tool": tool.name}
            )
            failure = InternalError(f"internal error; the log has the cause under {own_id}")
            return _failed(failure, own_id)

    return Server(
        "nearline",
        version=__version__,
        title="Nearline",
        instructions=_INSTRUCTIONS,
        get_tool_input_schema=schemas.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _run(
    tool: ServiceTool, calls: ServiceCalls, arguments: dict[str, Any]
) -> Coroutine[Any, Any, CallToolResult]:
    parsed = tool.parse(arguments)

    async def run() -> CallToolResult:
        result = await tool.run(calls, parsed)
        content = result.model_dump(mode="json", exclude_none=True)
        # Clients from before structured results read the text.
        return CallToolResult(
            content=[TextContent(text=orjson.dumps(content).decode())], structured_content=content
        )

    return run()


def _failed(error: NearlineError, own_id: str) -> CallToolResult:
    """Returns an error that the agent sees: reason, remedy, field and when to try again."""
    text = problem(error, own_id).decode()
    return CallToolResult(content=[TextContent(text=text)], is_error=True)
