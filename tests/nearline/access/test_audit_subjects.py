"""The audit log says what was deleted, and whose key had expired; never who a user is."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message

from nearline.access.access_control import AccessControl
from nearline.access.api_keys import KeyFile
from nearline.access.audit_log import AuditLog
from nearline.access.caller import EVERY
from nearline.access.method_guard import MethodGuard
from nearline.access.rights import Right
from nearline.errors import Unauthenticated
from nearline.v1 import admin_pb2, generation_pb2, ingest_pb2, retrieval_pb2 as retrieval
from nearline_cli.local.key_store import KeyStore


class Guarded:
    """The guard of a method, with a key of each age and the lines of its audit log."""

    def __init__(self, folder: Path, service: str, method: str) -> None:
        self._path = folder / "audit.jsonl"
        store = KeyStore(folder / "keys.toml")
        self.key, *_ = store.create("shop", {EVERY: Right.ADMIN})
        self.old_key, *_ = store.create(
            "shop", {EVERY: Right.ADMIN}, expires=datetime.fromtimestamp(time.time() + 60, UTC)
        )
        clock = lambda: time.time() + 120  # noqa: E731
        access = AccessControl(KeyFile(folder / "keys.toml", clock))
        self._guard = MethodGuard(f"nearline.v1.{service}", method, access, AuditLog(self._path))

    async def called(self, key: str, request: Any) -> dict[str, str]:
        """Calls the method; returns the line in the log."""
        metadata = (("authorization", f"Bearer {key}"),)
        context = SimpleNamespace(invocation_metadata=lambda: metadata, peer=lambda: "here")
        result = "OK"
        try:
            await self._guard.identify(context)
            checked = self._guard.check(request)
            if not isinstance(request, Message):
                _ = [one async for one in checked]
        except Unauthenticated as error:
            result = error.status
        self._guard.record(result, context, "r")
        line: dict[str, str] = json.loads(self._path.read_text("utf-8").splitlines()[-1])
        return line


ANN = sha256(b"ann").hexdigest()[:16]
CALLS = [
    ("RetrievalService", retrieval.DeleteItemsRequest(ids=["secret", "b"]), "2 items"),
    ("RetrievalService", retrieval.DeleteUserRequest(user_id="ann"), f"user sha256:{ANN}"),
    ("GenerationService", generation_pb2.DeleteSessionRequest(session_id="ann"),
     f"session sha256:{ANN}"),
    ("IngestService", ingest_pb2.CancelJobRequest(job_id="night"), "job night"),
    ("IngestService", ingest_pb2.DeleteDeadLettersRequest(letter_ids=["1-0"]), "1 dead letter"),
    ("AdminService", admin_pb2.PromoteSnapshotRequest(snapshot_id="s1", why="w"), "snapshot s1"),
    ("AdminService", admin_pb2.SetTrafficSplitRequest(canary_snapshot_id="s2"), "snapshot s2"),
    ("AdminService", admin_pb2.RollbackSnapshotRequest(why="w"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("service", "request_", "subject"), CALLS)
async def test_a_line_says_what_a_call_was_about(
    tmp_path: Path, service: str, request_: Message, subject: str
) -> None:
    method = type(request_).__name__.removesuffix("Request")
    guarded = Guarded(tmp_path, service, method)
    line = await guarded.called(guarded.key, request_)
    assert (line["method"], line["subject"]) == (method, subject)
    assert "secret" not in str(line) and "ann" not in str(line)


async def test_a_stream_counts_all_of_its_items(tmp_path: Path) -> None:
    async def requests() -> AsyncIterator[retrieval.DeleteItemsStreamRequest]:
        for _ in range(2):
            batch = retrieval.DeleteItemsRequest(ids=["a", "b"])
            yield retrieval.DeleteItemsStreamRequest(request=batch)

    guarded = Guarded(tmp_path, "RetrievalService", "DeleteItemsStream")
    assert (await guarded.called(guarded.key, requests()))["subject"] == "4 items"


async def test_a_refused_key_that_has_expired_is_named(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "RetrievalService", "Search")
    line = await guarded.called(guarded.old_key, retrieval.SearchRequest())
    name = guarded.old_key.split("_")[1]
    assert (line["caller"], line["tenant"], line["result"]) == (name, "shop", "UNAUTHENTICATED")
    line = await guarded.called(f"{guarded.key}x", retrieval.SearchRequest())
    assert (line["caller"], line["tenant"]) == ("", "")
