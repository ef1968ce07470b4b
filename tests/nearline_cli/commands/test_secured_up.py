"""`nearline up` with TLS and keys: its services reach each other, and nobody unknown gets in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from nearline import AdminClient, Query, RetrievalClient, SearchOptions
from nearline.errors import NotReady, PermissionDenied, SettingsError, Unauthenticated
from nearline.tls import TlsFiles
from tests.nearline_cli.conftest import Run, Up

pytestmark = pytest.mark.service
WHOLE = SearchOptions(k=1, require_full_coverage=True)
QUERY = Query(vector=np.eye(32, dtype=np.float32)[7])


class Secured:
    """A running `nearline up --separate` with TLS on every hop, and the commands beside it."""

    def __init__(self, nearline: Run, folder: Path) -> None:
        self._nearline = nearline
        self.folder = folder
        self.keys = folder / "keys.toml"
        self.tls = TlsFiles(authorities=str(folder / "certs" / "ca.pem"))
        self.address = ""

    def run(self, *words: str) -> dict[str, str]:
        done = self._nearline(*words, "--json")
        assert done.returncode == 0, done.stderr
        record: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return record

    def key(self, *words: str) -> dict[str, str]:
        return self.run("keys", "create", "--file", str(self.keys), *words)

    def client(self, token: str, tls: TlsFiles | None = None) -> RetrievalClient:
        return RetrievalClient(self.address, token=token, tls=self.tls if tls is None else tls)


@pytest_asyncio.fixture(name="secured")
async def give_secured(
    nearline: Run, up: Callable[..., Up], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Secured]:
    found = Secured(nearline, tmp_path)
    made = found.run("certs", str(tmp_path / "certs"))
    service = found.key("--right", "service", "--tenant", "*")
    for name, value in {
        "TLS_CERT": made["certificate"],
        "TLS_KEY": made["key"],
        "TLS_CA": made["authority"],
        # Every service shows its own certificate to those that it calls.
        "TLS_CLIENT_CA": "",
        "KEYS": str(found.keys),
        "AUDIT_LOG": str(tmp_path / "audit.jsonl"),
        "TOKEN": service["key"],
    }.items():
        monkeypatch.setenv(f"NEARLINE_{name}", value)
    running = await asyncio.to_thread(up, "--separate")
    found.address = running.address
    yield found


async def test_services_are_secured_from_end_to_end(secured: Secured, nearline: Run) -> None:
    reader = secured.key("--tenant", "shop", "--right", "read")
    elsewhere = secured.key("--tenant", "shop", "--right", "articles=write")
    async with secured.client(reader["key"]) as client:
        reply = await client.search(QUERY, WHOLE)
        assert [hit.id for hit in reply.hits] == ["d07"]
        with pytest.raises(PermissionDenied, match="'write'"):
            await client.delete_items(["d07"])
    async with AdminClient(secured.address, token=reader["key"], tls=secured.tls) as admin:
        with pytest.raises(PermissionDenied, match="'admin'"):
            await admin.roll_back(why="mine now")
    async with secured.client(elsewhere["key"]) as client:
        with pytest.raises(PermissionDenied, match="'default'"):
            await client.search(QUERY, WHOLE)
    for token in ("", "nl_aaaaaaaa_" + "A" * 43):
        async with secured.client(token) as client:
            with pytest.raises(Unauthenticated):
                await client.search(QUERY, WHOLE)
    async with secured.client("", TlsFiles()) as client:
        with pytest.raises(NotReady):
            await client.search(QUERY, WHOLE, timeout_s=2.0)
    with pytest.raises(SettingsError, match="unencrypted"):
        RetrievalClient("192.0.2.1:7700", token=reader["key"], tls=TlsFiles())
    # The commands take the key of the environment.
    shown = nearline("status", "--address", secured.address, "--embedding", "", "--json")
    assert shown.returncode == 0, shown.stdout
    # A service that refuses them is not away.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NEARLINE_TOKEN")
        shown = nearline("status", "--address", secured.address, "--embedding", "", "--json")
    states = {
        one["service"]: one["state"]
        for one in map(json.loads, shown.stdout.splitlines())
        if "service" in one
    }
    assert (shown.returncode, states["retrieval"]) == (1, "refused")
    assert "the call carries no credential" in shown.stderr
    audit = [json.loads(line) for line in (secured.folder / "audit.jsonl").read_text().splitlines()]
    assert {(one["caller"], one["method"], one["result"]) for one in audit} >= {
        (reader["id"], "DeleteItems", "PERMISSION_DENIED"),
        (reader["id"], "RollbackSnapshot", "PERMISSION_DENIED"),
        (elsewhere["id"], "Search", "PERMISSION_DENIED"),
        ("", "Search", "UNAUTHENTICATED"),
    }


async def test_keys_and_certificates_are_replaced_under_load(secured: Secured) -> None:
    old = secured.key("--right", "read")
    failed: list[Exception] = []
    answered = 0
    current, done = old["key"], asyncio.Event()

    async def keep_asking() -> None:
        nonlocal answered
        while not done.is_set():
            # A new connection each time, which is shown the newest certificate.
            async with secured.client(current) as client:
                try:
                    await client.search(QUERY, WHOLE, timeout_s=20.0)
                    answered += 1
                except Exception as error:
                    failed.append(error)

    async def after(count: int) -> None:
        async with asyncio.timeout(60):
            while answered < count:
                await asyncio.sleep(0.01)

    asking = [asyncio.create_task(keep_asking()) for _ in range(2)]
    await after(10)
    new = await asyncio.to_thread(secured.key, "--right", "read")
    await asyncio.to_thread(secured.run, "certs", str(secured.folder / "certs"))
    current = new["key"]
    await after(answered + 10)
    revoke = ("keys", "revoke", old["id"], "--yes", "--file", str(secured.keys))
    await asyncio.to_thread(secured.run, *revoke)
    async with asyncio.timeout(20), secured.client(old["key"]) as client:
        while True:
            try:
                await client.search(QUERY, WHOLE)
                await asyncio.sleep(0.05)
            except Unauthenticated:
                break
    await after(answered + 10)
    done.set()
    await asyncio.gather(*asking)
    assert failed == []
