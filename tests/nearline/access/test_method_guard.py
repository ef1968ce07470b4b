"""Ends of calls that belong in no audit log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from nearline.access.access_control import AccessControl
from nearline.access.audit_log import AuditLog
from nearline.access.caller import Caller
from nearline.access.method_guard import MethodGuard, acting_for

SERVICE = "nearline.v1.RetrievalService"
CONTEXT = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")


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
