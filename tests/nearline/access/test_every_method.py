"""Each right against each method of each service, over a real server with TLS and keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from nearline import serving, status
from nearline.access import audit_log
from nearline.access.api_keys import make_key
from nearline.access.caller import Caller
from nearline.access.delegation import delegation_of
from nearline.access.rights import METHODS, Right, Scope
from nearline.channel import ServiceChannel
from nearline.internal.v1 import shard_pb2_grpc
from nearline.settings import ServerSettings
from nearline.tls import TlsFiles
from nearline.v1 import (
    admin_pb2_grpc,
    embedding_pb2_grpc,
    generation_pb2_grpc,
    ingest_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from nearline_cli.local.certificates import CertificateAuthority
from retrieval.shards import servicer as shards
from tests.nearline.access.test_rights import SERVICES

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
MODULES = (
    admin_pb2_grpc,
    embedding_pb2_grpc,
    generation_pb2_grpc,
    ingest_pb2_grpc,
    retrieval_pb2_grpc,
    shard_pb2_grpc,
)
RIGHTS = (Right.READ, Right.WRITE, Right.ADMIN, Right.SERVICE)
METHOD_NAMES = [(service, method) for service, methods in METHODS.items() for method in methods]


@dataclass(frozen=True)
class Running:
    address: str
    tls: TlsFiles
    keys: Mapping[str, str]
    audit: Path

    async def call(self, token: str, service: str, method: str, collection: str = "") -> str:
        """Returns the status of a call; UNIMPLEMENTED if it was let through."""
        # grpc.aio may lose a refusal that arrives while a message is sent: grpc/grpc#36066.
        for _ in range(10):
            found = await self._call(token, service, method, collection)
            if found != status.LOST:
                break
        return found

    async def _call(self, token: str, service: str, method: str, collection: str) -> str:
        async with ServiceChannel(self.address, token=token, tls=self.tls) as channel:
            found = SERVICES[service].methods_by_name[method]
            request: Any = GetMessageClass(found.input_type)()
            if collection:
                named: Any = (
                    request.request if METHODS[service][method].scope is Scope.BATCHES else request
                )
                named.collection = collection
            path, data = f"/{service}/{method}", request.SerializeToString()
            stub: Any = channel.grpc_channel
            try:
                if found.client_streaming:
                    call = stub.stream_stream(path)(timeout=20)
                    if collection:
                        await call.write(data)
                    async for _ in call:
                        pass
                else:
                    async for _ in stub.unary_stream(path)(data, timeout=20):
                        pass
            except grpc.aio.AioRpcError as error:
                return status.LOST if error.details() == status.LOST else error.code().name
        return "OK"

    def audited(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.audit.read_text("utf-8").splitlines()]


def registrations() -> list[serving.Registration]:
    """Returns every service, none of whose methods does anything."""
    found = []
    for module in MODULES:
        (add,) = (one for name, one in vars(module).items() if name.startswith("add_"))
        name = add.__name__.removeprefix("add_").removesuffix("Servicer_to_server")
        found.append(
            serving.Registration(
                f"nearline.v1.{name}",
                partial(add, getattr(module, f"{name}Servicer")()),
            )
        )
    old: Any = shard_pb2_grpc.ShardServiceServicer()
    return [*found, *shards.registrations(old)[1:]]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def give_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("access")
    authority = CertificateAuthority(folder / "certs")
    certificate, key_file = authority.issue("server", ["127.0.0.1"])
    keys, tables = {}, []
    for name, rights, more in (
        *((right.name, {"*": right.name.lower()}, "") for right in RIGHTS),
        ("ONE", {"products": "write"}, ""),
        ("EXPIRED", {"*": "service"}, "expires = 2020-01-01T00:00:00Z\n"),
    ):
        keys[name], key_id, digest = make_key()
        tenant = "*" if "service" in rights.values() else name.lower()
        allowed = ", ".join(f'"{where}" = "{right}"' for where, right in rights.items())
        tables.append(
            f'[[key]]\nid = "{key_id}"\nsha256 = "{digest}"\ntenant = "{tenant}"\n'
            f"rights = {{ {allowed} }}\n{more}"
        )
    file = folder / "keys.toml"
    file.write_text("\n".join(tables))
    keys["UNKNOWN"], _, _ = make_key()
    settings = ServerSettings(
        keys=str(file),
        tls_cert=str(certificate),
        tls_key=str(key_file),
        audit_log=str(folder / "audit.jsonl"),
    )
    async with serving.running(registrations(), settings=settings) as address:
        tls = TlsFiles(authorities=str(authority.file))
        yield Running(address, tls, keys, folder / "audit.jsonl")


@pytest.mark.parametrize(("service", "method"), METHOD_NAMES)
async def test_a_method_is_open_to_its_right_and_to_no_lower_one(
    server: Running, service: str, method: str
) -> None:
    found = dict(
        zip(
            RIGHTS,
            await asyncio.gather(
                *(server.call(server.keys[right.name], service, method) for right in RIGHTS)
            ),
            strict=True,
        )
    )
    needed = METHODS[service][method].right
    assert found == {
        right: "UNIMPLEMENTED" if right >= needed else "PERMISSION_DENIED" for right in RIGHTS
    }


@pytest.mark.parametrize(("service", "method"), METHOD_NAMES)
async def test_nobody_unknown_calls_anything(server: Running, service: str, method: str) -> None:
    tokens = ("", server.keys["UNKNOWN"], server.keys["EXPIRED"], "header.body.signature", "x")
    calls = (server.call(token, service, method) for token in tokens)
    assert await asyncio.gather(*calls) == ["UNAUTHENTICATED"] * len(tokens)


@pytest.mark.parametrize(
    ("service", "method"),
    [pair for pair in METHOD_NAMES if METHODS[pair[0]][pair[1]].scope is not Scope.NONE],
)
async def test_a_right_in_one_collection_is_none_in_another(
    server: Running, service: str, method: str
) -> None:
    needed = METHODS[service][method].right
    mine, other, default = await asyncio.gather(
        server.call(server.keys["ONE"], service, method, "products"),
        server.call(server.keys["ONE"], service, method, "articles"),
        server.call(server.keys["ONE"], service, method),
    )
    assert mine == ("UNIMPLEMENTED" if needed <= Right.WRITE else "PERMISSION_DENIED")
    if METHODS[service][method].scope is Scope.ONE:
        assert (other, default) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


async def test_the_audit_log_has_what_destroys_and_what_was_refused(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The refusals of other tests are many.
    monkeypatch.setattr(audit_log, "_MOST_REFUSALS", 1 << 20)
    service = "nearline.v1.RetrievalService"
    before = len(server.audited())
    await server.call(server.keys["ONE"], service, "DeleteItems", "products")
    await server.call(server.keys["ONE"], service, "Search", "products")
    await server.call(server.keys["ONE"], service, "Search", "articles")
    await server.call(server.keys["UNKNOWN"], service, "Search", "products")
    lines = server.audited()[before:]
    caller = server.keys["ONE"].split("_")[1]
    assert [
        (one["caller"], one["tenant"], one["method"], one["collection"], one["result"])
        for one in lines
    ] == [
        (caller, "one", "DeleteItems", "products", "UNIMPLEMENTED"),
        (caller, "one", "Search", "articles", "PERMISSION_DENIED"),
        ("", "", "Search", "", "UNAUTHENTICATED"),
    ]
    assert all(one["request_id"] and one["peer"].startswith("ipv4:127") for one in lines)
    text = server.audit.read_text("utf-8")
    assert not [name for name, key in server.keys.items() if key in text]
    assert server.audit.stat().st_mode & 0o077 == 0


async def test_without_tls_or_its_authority_nobody_gets_to_the_keys(server: Running) -> None:
    async with ServiceChannel(server.address, token=server.keys["SERVICE"]) as channel:
        stub: Any = channel.grpc_channel
        call = stub.unary_unary("/nearline.v1.EmbeddingService/GetInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("name", "collection", "found"),
    [
        ("SERVICE", "products", "UNIMPLEMENTED"),
        ("SERVICE", "articles", "PERMISSION_DENIED"),
        # An administrator who names Anna is refused, and not taken for the administrator.
        ("ADMIN", "products", "PERMISSION_DENIED"),
        ("ADMIN", "articles", "PERMISSION_DENIED"),
    ],
)
async def test_only_a_service_calls_on_behalf_of_another(
    server: Running, name: str, collection: str, found: str
) -> None:
    anna = Caller("shop", (), {"products": Right.READ}, "anna")
    request = retrieval_pb2.SearchRequest(collection=collection).SerializeToString()
    async with ServiceChannel(server.address, token=server.keys[name], tls=server.tls) as channel:
        stub: Any = channel.grpc_channel
        call = stub.unary_unary("/nearline.v1.RetrievalService/Search")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request, timeout=20, metadata=[delegation_of(anna)])
    assert caught.value.code().name == found
