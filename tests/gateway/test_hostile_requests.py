"""Malformed and hostile HTTP: an answer for each, and the gateway goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway import http_server
from nearline.v1 import retrieval_pb2
from tests.gateway.gateways import Behind, gateway

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
LIMIT = 64 << 10
SEARCH = "/v1/collections/shop/search"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="address")
async def give_address() -> AsyncIterator[tuple[str, int]]:
    async with gateway(max_body_bytes=LIMIT) as (client, behind):
        _answer(behind)
        host, port = client.base_url.host, client.base_url.port
        assert port is not None
        yield host, port


def _answer(behind: Behind) -> None:
    behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
    behind.answers["UpsertItems"] = lambda request: retrieval_pb2.UpsertItemsResponse()


async def _exchange(address: tuple[str, int], data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes, and reads one response; status 0: the connection was closed."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(10):
            writer.write(data)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0, {}, b""
            status, *lines = head.decode("latin-1").split("\r\n")
            headers = dict(one.lower().split(": ", 1) for one in lines if ": " in one)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            return int(status.split()[1]), headers, body
    finally:
        writer.close()


def _post(body: bytes, path: str = SEARCH, headers: str = "", verb: str = "POST") -> bytes:
    own = f"host: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    head = f"{verb} {path} HTTP/1.1\r\n{own}{headers}\r\n"
    return head.encode("latin-1") + body


def _json(value: Any, **more: Any) -> bytes:
    return _post(json.dumps(value).encode(), **more)


def _nested(depth: int, opening: str, closing: str) -> bytes:
    return (opening * depth + closing * depth).encode()


def _item(**fields: Any) -> bytes:
    items = [{"id": "a", **fields}]
    return _json({"items": items}, path="/v1/collections/shop/items", verb="PUT")


def _query(value: Any) -> bytes:
    return _json({"query": value})


def _options(**fields: Any) -> bytes:
    return _json({"query": {"text": "x"}, "options": fields})


# Each is answered with problem details of this status.
# In UTC, it is in the year 10,000.
_AFTER_ALL = "9999-12-31T23:59:59-23:59"
REFUSED: dict[str, tuple[int, bytes]] = {
    "no JSON": (400, _post(b"{query}")),
    "a part of JSON": (400, _post(b'{"query": {"text": "x"')),
    "two values": (400, _post(b"{} {}")),
    "a list": (400, _post(b"[]")),
    "a text": (400, _post(b'"x"')),
    "a number": (400, _post(b"1")),
    "NaN": (400, _post(b'{"options": {"min_score": NaN}}')),
    "a byte order mark": (400, _post(b"\xef\xbb\xbf{}")),
    "UTF-16": (415, _post('{"query": {"text": "x"}}'.encode("utf-16"))),
    "not UTF-8": (400, _post(b'{"query": {"text": "\xff\xfe"}}')),
    "a lone surrogate": (400, _post(b'{"query": {"text": "\\ud800"}}')),
    "a page of two minus signs": (400, _post(b"", path="/v1/jobs?page_size=--5", verb="GET")),
    "a page of a superscript": (400, _post(b"", path="/v1/jobs?page_size=%C2%B2", verb="GET")),
    "a page of a minus sign": (400, _post(b"", path="/v1/jobs?page_size=-", verb="GET")),
    "a query of lists in lists": (400, _post(b'{"query": ' + _nested(1_020, "[", "]") + b"}")),
    "a text of lists in lists": (
        400,
        _post(b'{"query": {"text": ' + _nested(1_015, "[", "]") + b"}}"),
    ),
    "a vector of lists in lists": (
        400,
        _post(b'{"query": {"vector": ' + _nested(1_015, "[", "]") + b"}}"),
    ),
    "a value of objects in objects": (
        400,
        _post(
            b'{"items": [{"id": "a", "attributes": {"a": ' + _nested(1_010, '{"a":', "}") + b"}}]}",
            path="/v1/collections/shop/items",
            verb="PUT",
        ),
    ),
    "lists in lists": (400, _post(_nested(10_000, "[", "]"))),
    "objects in objects": (400, _post(_nested(5_000, '{"query":', "}"))),
    "a filter of filters": (
        400,
        _post(b'{"options": {"filter": ' + _nested(900, '{"not":', "}") + b"}}"),
    ),
    "zeros compressed by nobody": (400, _post(b"\x00" * 1_000)),
    "gzip": (415, _post(gzip.compress(b"{}"), headers="content-encoding: gzip\r\n")),
    "gzip that no header names": (415, _post(gzip.compress(b"{}"))),
    "gzip of lines": (
        415,
        _post(
            gzip.compress(b"{}"),
            path="/v1/collections/shop/items/stream",
            headers="content-encoding: gzip\r\n",
            verb="PUT",
        ),
    ),
    "gzip of interactions": (
        415,
        _post(gzip.compress(b"{}"), path="/v1/collections/shop/interactions/import"),
    ),
    "gzip for another interface": (
        415,
        _post(gzip.compress(b"{}"), path="/mcp", headers="content-encoding: gzip\r\n"),
    ),
    "a line too large": (
        413,
        _post(b" " * (LIMIT + 1), path="/v1/collections/shop/items/stream", verb="PUT"),
    ),
    "too large": (413, _post(b" " * (LIMIT + 1))),
    "too large in chunks": (
        413,
        f"POST {SEARCH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
        + b"transfer-encoding: chunked\r\n\r\n"
        + b"8000\r\n"
        + b" " * 0x8000
        + b"\r\n8000\r\n"
        + b" " * 0x8000
        + b"\r\n2\r\n  \r\n0\r\n\r\n",
    ),
    "an unknown field": (400, _json({"q": "x"})),
    "a field with a huge name": (400, _json({"x" * 5_000: 1})),
    "a field of the wrong kind": (400, _query("red")),
    "a text that is a number": (400, _query({"text": 1})),
    "a text that is a list": (400, _query({"text": ["x"]})),
    "two kinds of query": (400, _query({"text": "x", "items": {"ids": ["a"]}})),
    "k below zero": (400, _options(k=-1)),
    "k of a half": (400, _options(k=1.5)),
    "k of words": (400, _options(k="ten")),
    "k beyond all bounds": (400, _options(k=10**30)),
    "k true": (400, _options(k=True)),
    "a mode that is none": (400, _options(mode="magic")),
    "a mode by number": (400, _options(mode=2)),
    "a payload that is none": (400, _options(payload=["secret"])),
    "a payload that is a text": (400, _options(payload="title")),
    "a watermark that is not base64": (400, _options(min_watermark="%%%")),
    "a filter that does not parse": (400, _options(filter="price <")),
    "a filter of 300 parts": (400, _options(filter=" AND ".join(["a = 1"] * 300))),
    "a filter by number": (400, _options(filter=7)),
    "an empty vector": (400, _query({"vector": []})),
    "a vector of words": (400, _query({"vector": ["a"]})),
    "a vector of unequal rows": (400, _query({"vector": [[1, 2], [3]]})),
    "a vector in three dimensions": (400, _query({"vector": [[[1.0]]]})),
    "a vector of infinities": (400, _post(b'{"query": {"vector": [1e39, 1]}}')),
    "a vector that is an object": (400, _query({"vector": {"data": "AAAA"}})),
    "an item of no list": (
        400,
        _json({"items": {}}, path="/v1/collections/shop/items", verb="PUT"),
    ),
    "an attribute that is an object": (400, _item(attributes={"a": {"b": 1}})),
    "an attribute of lists in lists": (400, _item(attributes={"a": [[1]]})),
    "an attribute that is no time": (400, _item(attributes={"a": {"$time": "yesterday"}})),
    "an attribute beyond 64 bits": (400, _item(attributes={"a": 2**63})),
    "a time after the last year": (
        400,
        _item(attributes={"a": {"$time": _AFTER_ALL}}),
    ),
    "an expiry before the first year": (400, _item(expire_time="0001-01-01T00:00:00+23:59")),
    "a filter by a time after the last year": (400, _options(filter=f"at > {_AFTER_ALL}")),
    "attributes that are a list": (400, _item(attributes=[1])),
    "an expiry that is no time": (400, _item(expire_time=5)),
    "a version below zero": (400, _item(version=-1)),
    "a timeout of zero": (400, _post(b"{}", headers="nearline-timeout: 0\r\n")),
    "a timeout of words": (400, _post(b"{}", headers="nearline-timeout: soon\r\n")),
    "a credential of bytes": (400, _post(b"{}", headers="authorization: Bearer \xff\r\n")),
    "a path that is none": (404, _post(b"{}", path="/v2/search")),
    "a path upwards": (404, _post(b"{}", path="/v1/collections/../../etc/passwd")),
    "an encoded path upwards": (404, _post(b"{}", path="/v1/%2e%2e/%2e%2e/etc/passwd/x")),
    "a verb that is not taken": (405, _post(b"{}", verb="DELETE")),
    "a verb of others": (405, _post(b"", verb="PROPFIND")),
}
# What is not HTTP, or too much of it, is answered with 400 or not at all.
CLOSED: dict[str, bytes] = {
    "nothing that is HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "another protocol": b"EHLO mail.example\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a verb that is none": b"FROB / HTTP/1.1\r\n\r\n",
    "a version that is none": b"GET / HTTP/9.9\r\n\r\n",
    "headers without a colon": b"GET / HTTP/1.1\r\nhost\r\n\r\n",
    "a body of negative length": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "chunks of no length": b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "a header of a megabyte": b"GET / HTTP/1.1\r\nx: " + b"x" * (1 << 20),
    "ten thousand headers": b"GET / HTTP/1.1\r\n" + b"x: xxxxxxxxxx\r\n" * 10_000,
    "a path of a megabyte": b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_malformed_request_is_a_problem_that_says_what_to_send(
    address: tuple[str, int], name: str
) -> None:
    status, data = REFUSED[name]
    found, headers, body = await _exchange(address, data)
    assert found == status, body
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["status"] == status and len(problem["detail"]) < 1_000
    if status in (413, 415):
        assert "--max-body-bytes" in problem["detail"] or "UTF-8" in problem["detail"]
    assert problem["reason"] in ("INVALID_REQUEST", "NOT_FOUND", "UNSUPPORTED")


@pytest.mark.parametrize("name", CLOSED)
async def test_what_is_not_http_is_refused(address: tuple[str, int], name: str) -> None:
    status, _, _ = await _exchange(address, CLOSED[name])
    assert status in (0, 400)
    assert (await _exchange(address, _query({"text": "x"})))[0] == 200


async def test_the_headers_of_each_request_of_a_connection_count_alone(
    address: tuple[str, int],
) -> None:
    request = _json({"query": {"text": "x"}}, headers=f"x-more: {'x' * 4_000}\r\n")
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request[:8])
        async with asyncio.timeout(20):
            for _ in range(40):
                # The next one begins in the same segment, and so arrives in two.
                writer.write(request[8:] + request[:8])
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                assert head.startswith("http/1.1 200")
                await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
    finally:
        writer.close()


async def test_a_client_that_sends_no_request_is_not_waited_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEADER_S", 0.1)
    for begun in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"):
        assert (await _exchange(address, begun))[0] == 0
    assert (await _exchange(address, _query({"text": "x"})))[0] == 200


async def test_the_time_for_headers_holds_for_each_request_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "HEADER_S", 0.1)
    async with gateway() as (client, behind):
        _answer(behind)
        port = client.base_url.port
        assert port is not None
        reader, writer = await asyncio.open_connection(client.base_url.host, port)
        behind.go.clear()
        writer.write(_query({"text": "x"}))
        reply = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        # Its answer takes longer.
        assert not (await asyncio.wait([reply], timeout=0.4))[0]
        behind.go.set()
        async with asyncio.timeout(10):
            assert (await reply).startswith(b"HTTP/1.1 200")
            # The next request never ends.
            writer.write(b"GET /healthz HT")
            await reader.read()
        writer.close()
