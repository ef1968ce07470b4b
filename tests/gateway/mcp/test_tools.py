"""The official client lists and calls every tool, over HTTP and stdio, on real services."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import pytest_asyncio
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, TextContent

from tests.gateway.mcp.real_services import RealServices, real_services
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module"), needs_redis]
ROOT = Path(__file__).parents[3]
INITIALIZE = (
    json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
    ).encode()
    + b"\n"
)
# A busy machine takes half a minute to start the command, and ten seconds to end it.
PATIENCE_S = 50
READS = ["list_collections", "search", "recommend", "why_not", "get_item", "ask", "verify_citation"]


class Ended(NamedTuple):
    """How the command ended: its exit code, and what it said."""

    code: int | None
    error: str


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="services")
async def give_services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealServices]:
    async with real_services(tmp_path_factory.mktemp("services")) as running:
        yield running


def structured(result: CallToolResult) -> dict[str, Any]:
    """Returns the content of a result that is no error, which its text repeats."""
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert not result.is_error, text.text
    content: dict[str, Any] = result.structured_content
    assert json.loads(text.text) == content
    return content


def failure(result: CallToolResult) -> dict[str, Any]:
    """Returns the problem of an error."""
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert result.is_error and result.structured_content is None, text.text
    found: dict[str, Any] = json.loads(text.text)
    return found


async def use_every_tool(client: Client, item_id: str) -> None:
    """Calls each tool, as an agent would; the client checks results against their schemas."""
    listed = (await client.list_tools()).tools
    assert [tool.name for tool in listed] == [*READS, "remember", "forget"]
    for tool in listed:
        assert tool.description and tool.output_schema and tool.annotations
        assert tool.annotations.read_only_hint is (tool.name in READS)
    listing = structured(await client.call_tool("list_collections", {}))
    assert listing == {"collections": {"default": 3}}
    other = await client.call_tool("list_collections", {"collection": "other"})
    assert structured(other)["collections"] == {}
    found = structured(
        await client.call_tool("search", {"query": "boil water", "filter": "kind = manual", "k": 2})
    )
    assert found["hits"][0]["id"] == "kettle" and found["complete"]
    assert found["hits"][0]["attributes"] == {"kind": "manual"}
    assert "boils water" in found["hits"][0]["text"]

    asked = {"question": "how long does the kettle take to boil water?", "answer_anyway": True}
    answer = structured(await client.call_tool("ask", asked))
    assert answer["answered"] and "3 minutes" in answer["answer"]
    citation = answer["citations"][0]
    where = {"start": citation["char_start"], "end": citation["char_end"]}
    item = structured(
        await client.call_tool("get_item", {"item_id": citation["document_id"], **where})
    )
    assert item["text"] == "The kettle boils water in 3 minutes."
    assert item["text_length"] > len(item["text"])
    changed = {**citation, "text_hash": "0" * 64}
    checks = structured(
        await client.call_tool("verify_citation", {"citations": [citation, changed]})
    )
    assert [check["verdict"] for check in checks["checks"]] == ["valid", "changed"]

    listing = structured(await client.call_tool("recommend", {"item_ids": ["kettle"], "n": 1}))
    (first,) = listing["recommendations"]
    assert first["id"] != "kettle" and listing["policy"].startswith("home/")
    why = structured(
        await client.call_tool("why_not", {"item_ids": ["kettle"], "n": 1, "item_id": "kettle"})
    )
    assert (why["cause"], why["item_id"]) == ("excluded", "kettle") and why["message"]

    kept = structured(
        await client.call_tool(
            "remember",
            {
                "item_id": item_id,
                "title": "Note",
                "text": "The teapot stands upon the upper shelf.",
                "attributes": {"kind": "note", "tags": ["a", "b"], "n": 2},
            },
        )
    )
    assert (kept["outcome"], kept["visible"]) == ("applied", True)
    found = structured(await client.call_tool("search", {"query": "upper shelf teapot", "k": 1}))
    assert found["hits"][0]["id"] == item_id
    assert found["hits"][0]["attributes"] == {"kind": "note", "tags": ["a", "b"], "n": 2}
    fewer = {"item_id": item_id, "attributes": {"n": None, "kind": "memo"}, "only_attributes": True}
    assert structured(await client.call_tool("remember", fewer))["outcome"] == "replaced"
    item = structured(await client.call_tool("get_item", {"item_id": item_id}))
    assert item["attributes"] == {"kind": "memo", "tags": ["a", "b"]} and item["title"] == "Note"
    gone = structured(await client.call_tool("forget", {"item_id": item_id}))
    assert (gone["item"]["outcome"], gone["item"]["visible"]) == ("deleted", True)
    assert failure(await client.call_tool("get_item", {"item_id": item_id}))["status"] == 404
    erased = structured(await client.call_tool("forget", {"user_id": "ann"}))
    assert erased["user"]["user_id"] == "ann" and erased["user"]["interactions"] == 0
    assert erased["user"]["delete_time"] and erased["user"]["snapshots"] == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_tool_over_http(services: RealServices, mode: str) -> None:
    async with services.client(services.writer, mode) as client:
        assert client.server_info is not None and client.server_info.name == "nearline"
        await use_every_tool(client, f"note-{mode}")


def stdio(services: RealServices, token: str) -> StdioServerParameters:
    words = ["--address", services.router, "--generation", services.generation]
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "nearline_cli.main", "mcp", *words],
        env={"PYTHONPATH": str(ROOT), "NEARLINE_TOKEN": token},
    )


async def test_every_tool_over_stdio(services: RealServices) -> None:
    async with Client(stdio(services, services.writer)) as client:
        await use_every_tool(client, "note-stdio")


async def test_a_caller_may_do_what_its_key_may(services: RealServices) -> None:
    async with services.client(services.reader) as client:
        structured(await client.call_tool("search", {"query": "lamp"}))
        kept = failure(await client.call_tool("remember", {"item_id": "x", "text": "x"}))
        assert kept["reason"] == "PERMISSION_DENIED" and "write" in kept["detail"]
        gone = failure(await client.call_tool("forget", {"item_id": "lamp"}))
        assert gone["status"] == 403
    async with httpx2.AsyncClient(trust_env=False) as http:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        found = await http.post(services.url, json=asked)
        assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")


async def test_what_a_service_refuses_says_why_and_what_helps(services: RealServices) -> None:
    async with services.client(services.writer) as client:
        found = failure(await client.call_tool("search", {"query": "x", "filter": "kind = = 3"}))
        assert found["reason"] == "INVALID_REQUEST" and "filter" in found["detail"]
        found = failure(await client.call_tool("search", {"query": "x", "collection": "none"}))
        assert (found["reason"], found["status"]) == ("NOT_FOUND", 404)
        found = failure(await client.call_tool("remember", {"item_id": "x"}))
        assert found["reason"] == "INVALID_REQUEST"
        found = failure(await client.call_tool("forget", {}))
        assert "item_id or user_id" in found["detail"]
        refused = structured(
            await client.call_tool("ask", {"question": "how do whales breathe under the ice?"})
        )
        assert not refused["answered"] and refused["refusal"]["message"]


@contextlib.asynccontextmanager
async def process(services: RealServices) -> AsyncIterator[Process]:
    """Runs `nearline mcp` until the end of the block; it has answered a request."""
    given = stdio(services, services.reader)
    running = await asyncio.create_subprocess_exec(
        given.command,
        *given.args,
        env=given.env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert running.stdin is not None and running.stdout is not None
    try:
        # A line that is no message has no effect.
        running.stdin.write(b"hello?\n" + INITIALIZE)
        answer = json.loads(await asyncio.wait_for(running.stdout.readline(), PATIENCE_S))
        assert answer["result"]["serverInfo"]["name"] == "nearline"
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def ended(services: RealServices, end: Callable[[Process], Awaitable[None]]) -> Ended:
    """Runs the command, ends it, and returns how it ended."""
    async with process(services) as running:
        await end(running)
        out, error = await asyncio.wait_for(running.communicate(), PATIENCE_S)
    assert out == b"" and b"Traceback" not in error, error
    return Ended(running.returncode, error.decode())


async def test_the_command_ends_with_its_input_by_ctrl_c_and_when_a_message_is_too_long(
    services: RealServices,
) -> None:
    async def end_input(running: Process) -> None:
        assert running.stdin is not None
        running.stdin.close()

    async def interrupt(running: Process) -> None:
        running.send_signal(signal.SIGINT)

    async def send_too_much(running: Process) -> None:
        assert running.stdin is not None
        with contextlib.suppress(ConnectionError):
            for _ in range(5):
                running.stdin.write(b"x" * (1 << 20))
                await running.stdin.drain()

    at_end, interrupted, too_long = await asyncio.gather(
        *(ended(services, end) for end in (end_input, interrupt, send_too_much))
    )
    assert (at_end.code, interrupted.code, too_long.code) == (0, 130, 2)
    assert "more than 4,194,304 bytes; send less" in too_long.error
    assert len(at_end.error.splitlines()) == len(interrupted.error.splitlines()) == 1
