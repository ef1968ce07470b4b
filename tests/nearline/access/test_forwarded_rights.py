"""Rights of calls that a server passes on: those that the caller has at the service itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from nearline.access.caller import Caller
from nearline.access.caller_file import CallerFile
from nearline.access.delegation import delegation_of
from nearline.access.rights import METHODS, Right
from nearline.channel import ServiceChannel
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline.tls import TlsFiles
from nearline.v1 import embedding_pb2, embedding_pb2_grpc
from nearline_cli.local.certificates import CertificateAuthority
from tests.nearline.access.test_every_method import Running, give_server
from tests.nearline.doors import EMBEDDING, GENERATION, INGEST, Behind, front
from tests.waits import until

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
__all__ = ["give_server"]
FORWARDED = [service.full_name for service in (EMBEDDING, GENERATION, INGEST)]
METHOD_NAMES = [(service, method) for service in FORWARDED for method in METHODS[service]]
UNIMPLEMENTED, DENIED = "UNIMPLEMENTED", "PERMISSION_DENIED"


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", name="door", params=["with keys", "without keys"]
)
async def give_door(request: pytest.FixtureRequest, server: Running) -> AsyncIterator[Running]:
    """Runs a server in front of another with keys and TLS, and gives the first."""
    folder = server.audit.parent
    files = {
        "tls_cert": str(folder / "certs" / "server.pem"),
        "tls_key": str(folder / "certs" / "server.key"),
    }
    settings = ServerSettings(**files, audit_log=str(folder / f"{request.param}.jsonl"))
    if request.param == "with keys":
        settings = settings.model_copy(update={"keys": str(folder / "keys.toml")})
    async with contextlib.AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as environ:
            environ.setenv("NEARLINE_TLS_CA", server.tls.authorities)
            address = await stack.enter_async_context(
                front(server.address, settings, ingest=server.address)
            )
        yield replace(server, address=address, audit=Path(settings.audit_log))


@pytest.mark.parametrize(("service", "method"), METHOD_NAMES)
async def test_a_call_has_the_result_that_it_has_at_the_service(
    server: Running, door: Running, service: str, method: str
) -> None:
    calls = [(server.keys[name], "") for name in ("READ", "WRITE", "UNKNOWN", "EXPIRED")]
    calls += [("", ""), (server.keys["ONE"], "")]
    if METHODS[service][method].scope == "one":
        calls += [(server.keys["ONE"], "products"), (server.keys["ONE"], "articles")]
    there, through = await asyncio.gather(
        *(
            asyncio.gather(*(at.call(token, service, method, named) for token, named in calls))
            for at in (server, door)
        )
    )
    assert through == there


@pytest.mark.parametrize(("name", "found"), [("SERVICE", UNIMPLEMENTED), ("ADMIN", DENIED)])
async def test_only_a_service_calls_on_behalf_of_another(
    door: Running, name: str, found: str
) -> None:
    anna = Caller("shop", (), {"products": Right.READ}, "anna")
    async with ServiceChannel(door.address, token=door.keys[name], tls=door.tls) as channel:
        stub: Any = channel.grpc_channel
        call = stub.unary_unary("/nearline.v1.EmbeddingService/GetInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=20, metadata=[delegation_of(anna)])
    assert caught.value.code().name == found


async def test_a_service_that_knows_no_keys_is_as_safe_as_the_server_in_front(
    server: Running,
) -> None:
    folder = server.audit.parent
    settings = ServerSettings(keys=str(folder / "keys.toml"), audit_log=str(folder / "open.jsonl"))
    async with (
        running(Behind().registrations) as behind,
        front(behind, settings, ingest=behind) as address,
    ):
        door = replace(server, address=address, tls=TlsFiles(), audit=Path(settings.audit_log))
        calls = [
            (name, service, method)
            for name in ("UNKNOWN", "EXPIRED", "READ", "WRITE")
            for service, method in (
                (EMBEDDING.full_name, "GetInfo"),
                (INGEST.full_name, "Submit"),
            )
        ]
        found = [await door.call(door.keys[name], *call) for name, *call in calls]
        assert await door.call("", EMBEDDING.full_name, "GetInfo") == "UNAUTHENTICATED"
    assert found == [
        *["UNAUTHENTICATED"] * 4,
        *(UNIMPLEMENTED, DENIED),
        *(UNIMPLEMENTED, UNIMPLEMENTED),
    ]
    # Whose key has expired, or has no such right, is on record.
    assert [
        (bool(one["caller"]), one["tenant"], one["method"], one["result"]) for one in door.audited()
    ] == [
        *[(False, "", method, "UNAUTHENTICATED") for method in ("GetInfo", "Submit")],
        *[(True, "*", method, "UNAUTHENTICATED") for method in ("GetInfo", "Submit")],
        (True, "read", "Submit", DENIED),
        (False, "", "GetInfo", "UNAUTHENTICATED"),
    ]


async def test_half_of_the_places_are_for_a_tenant_however_many_keys_it_has() -> None:
    known = CallerFile(
        {
            sha256(name.encode()).hexdigest(): Caller(name[0], rights={"*": Right.READ}, name=name)
            for name in ("a1", "a2", "b1")
        }
    )
    behind = Behind()
    behind.go.clear()
    async with (
        running(behind.registrations) as inside,
        front(inside, ServerSettings(max_calls=8), callers=known) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)

        async def embed(token: str) -> grpc.StatusCode:
            request = embedding_pb2.EmbedRequest(texts=["kettle"])
            sent = (("authorization", f"Bearer {token}"),)
            code: grpc.StatusCode = await stub.Embed(request, timeout=20, metadata=sent).code()
            return code

        calls = [asyncio.create_task(embed(token)) for token in ("a1", "a1", "a1", "a2", "a2")]
        # Four of eight are held, and the fifth is refused at once.
        refused, held = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [await one for one in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        held.add(asyncio.create_task(embed("b1")))
        await until(lambda: behind.running >= 5)
        behind.go.set()
        assert set(await asyncio.gather(*held)) == {grpc.StatusCode.OK}


async def test_the_router_shows_its_certificate_to_a_service_that_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = map(str, authority.issue("services", ["127.0.0.1"]))
    files = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": str(authority.file)}
    async with running(Behind().registrations, settings=ServerSettings(**files)) as behind:
        monkeypatch.setenv("NEARLINE_TLS_CA", str(authority.file))
        found = []
        for shown in (False, True):
            if shown:
                monkeypatch.setenv("NEARLINE_TLS_CERT", certificate)
                monkeypatch.setenv("NEARLINE_TLS_KEY", key)
            async with front(behind) as address, grpc.aio.insecure_channel(address) as channel:
                stub: Any = channel
                call = stub.unary_unary("/nearline.v1.EmbeddingService/GetInfo")(b"", timeout=20)
                found.append((await call.code()).name)
    assert found == ["UNAVAILABLE", UNIMPLEMENTED]


async def test_a_credential_does_not_travel_unencrypted_to_another_machine() -> None:
    async with (
        front("services.example:7701") as address,
        ServiceChannel(address, token="secret") as channel,
    ):
        stub: Any = channel.grpc_channel
        call = stub.unary_unary("/nearline.v1.EmbeddingService/GetInfo")
        with pytest.raises(grpc.aio.AioRpcError, match="unencrypted from this router to serv"):
            await call(b"", timeout=20)
