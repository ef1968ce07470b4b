"""The limits of callers, and the ends of calls that belong in no audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearline.access import method_guard
from nearline.access.access_control import AccessControl
from nearline.access.audit_log import AuditLog
from nearline.access.caller import Caller
from nearline.access.caller_file import CallerFile
from nearline.access.limits import LimitFile
from nearline.access.method_guard import MethodGuard, acting_for, current_item_limit
from nearline.access.rate_limiter import RateLimiter
from nearline.access.rights import Right
from nearline.errors import NotReady, PermissionDenied, Unauthenticated
from nearline.v1 import retrieval_pb2

SERVICE = "nearline.v1.RetrievalService"
CONTEXT = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
CALLER = Caller("shop", rights={"*": Right.WRITE}, name="a")
ACCESS = AccessControl(callers=CallerFile({sha256(b"a").hexdigest(): CALLER}))


class Context:
    """The context of a call with the caller's token."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "Bearer a"),)


def test_the_end_of_a_call_that_never_began_is_not_recorded(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    guard = MethodGuard(SERVICE, "UpsertItems", AccessControl(), log)
    guard.record("PERMISSION_DENIED", CONTEXT, "a")
    with acting_for(Caller("shop", name="k1")):
        guard.record("PERMISSION_DENIED", CONTEXT, "b")
    log.close()
    (line,) = (tmp_path / "audit.jsonl").read_text("utf-8").splitlines()
    assert '"request_id": "b"' in line


def test_without_an_audit_log_nothing_is_recorded() -> None:
    with acting_for(Caller("shop", name="k1")):
        MethodGuard(SERVICE, "UpsertItems", AccessControl()).record(
            "PERMISSION_DENIED", CONTEXT, "a"
        )


class Lowering:
    """Access whose caller may write at first, and only read later."""

    required = True

    def __init__(self) -> None:
        self.right = Right.WRITE

    async def identify(self, metadata: object) -> Caller:
        return Caller(rights={"*": self.right})


async def test_a_right_that_is_taken_away_ends_a_stream_at_its_next_request() -> None:
    async def requests() -> AsyncIterator[Any]:
        for _ in range(2):
            yield retrieval_pb2.UpsertItemsStreamRequest()

    access = Lowering()
    guard = MethodGuard(SERVICE, "UpsertItemsStream", cast(AccessControl, access))
    await guard.identify(Context())
    checked = guard.check(requests())
    await anext(checked)
    access.right = Right.READ
    with pytest.raises(PermissionDenied):
        await anext(checked)


async def test_the_item_limit_of_a_call_is_that_of_its_tenant(tmp_path: Path) -> None:
    assert current_item_limit() is None
    path = tmp_path / "limits.toml"
    for limits, found in (("k = 1", None), ("items = 5", ("tenant 'shop'", 5))):
        path.write_text(f"[default]\n{limits}")
        limiter = RateLimiter(LimitFile(str(path)))
        await MethodGuard(SERVICE, "UpsertItems", ACCESS, limiter=limiter).identify(Context())
        assert current_item_limit() == found
    with acting_for(Caller("other")):
        # What this service asks of another one is limited there.
        assert current_item_limit() is None


class Outage:
    """Access to an identity provider that knows a token, is away, and refuses the token."""

    required = True

    def __init__(self) -> None:
        self.errors = [None, NotReady("away"), NotReady("away"), Unauthenticated("revoked")]

    async def identify(self, metadata: object) -> Caller:
        if (error := self.errors.pop(0)) is not None:
            raise error
        return CALLER


async def test_a_stream_outlasts_an_outage_of_the_provider_but_no_refusal_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(method_guard, "_LOOK_EVERY_S", 0.0)
    access = Outage()
    guard = MethodGuard(SERVICE, "UpsertItemsStream", cast(AccessControl, access))
    await guard.identify(Context())
    with pytest.raises(Unauthenticated, match="revoked"):
        async with asyncio.timeout(10), guard.valid_credential():
            await asyncio.Event().wait()
    assert access.errors == []
    # The task of the call is not cancelled any more: it sends the status.
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()
