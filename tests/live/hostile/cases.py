"""One hostile request, how it is sent, and what must come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from nearline import status
from nearline.contract import MAX_ID_BYTES
from nearline.v1 import retrieval_pb2 as r
from tests.live.hostile.pace import TRIES, in_time

_TIMEOUT_S = 20.0
_PAUSE_S = 0.002
OK = "OK"
REJECTED = "REJECTED"
Body: TypeAlias = Message | bytes | Sequence[Message | bytes]
_REASONS = {
    "INVALID_ARGUMENT": ("INVALID_REQUEST",),
    "NOT_FOUND": ("NOT_FOUND",),
    "RESOURCE_EXHAUSTED": ("OVERLOADED",),
    "UNAVAILABLE": ("NOT_APPLIED",),
    "UNIMPLEMENTED": ("UNSUPPORTED",),
    "ABORTED": ("CONFLICT",),
    "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED",),
    "FAILED_PRECONDITION": ("SNAPSHOT_MISMATCH", "SNAPSHOT_GONE", "GATE_FAILED"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A request that must be refused in time.

    name: What is hostile about it.
    method: Service and method, "RetrievalService/Search".
    body: The request, or the requests of a stream; a function makes large ones when they are sent.
    code: Status that must come back; REJECTED: a reply that rejects every item; OK: a reply, as the
        request is odd but harmless.
    says: Part of the error's message.
    field: Field that the error names; None: not checked.
    by_grpc: Whether gRPC itself refuses the call, which then carries no details of ours; None: both
        may be.
    timeout_s: The caller's deadline.
    waits_s: Seconds that the request lets the server wait before it refuses.
    metadata: Metadata of the call.
    """

    name: str
    method: str
    body: Body | Callable[[], Body]
    code: str = "INVALID_ARGUMENT"
    says: str = ""
    field: str | None = None
    by_grpc: bool | None = False
    timeout_s: float = _TIMEOUT_S
    waits_s: float = 0.0
    metadata: tuple[tuple[str, str | bytes], ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the case must be refused."""
        return self.code != OK


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a case. problem: Why it is wrong; empty if it is right."""

    code: str
    message: str
    spent_s: float
    problem: str = ""


class Sender:
    """Sends cases to one service over a channel without retries."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(
            address,
            options=(
                ("grpc.enable_retries", 0),
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_send_message_length", 256 << 20),
                ("grpc.max_receive_message_length", 256 << 20),
                ("grpc.max_metadata_size", 1 << 20),
            ),
        )

    async def judge(self, case: Case) -> Outcome:
        """Sends a case, and again if it was slow or gRPC lost the answer; returns the outcome."""
        for _ in range(TRIES):
            outcome = await self._send(case)
            if outcome.message == status.LOST:
                continue
            if outcome.problem or in_time(outcome.spent_s - case.waits_s):
                return outcome
        return replace(outcome, problem=outcome.problem or f"took {outcome.spent_s:.2f} s")

    async def _send(self, case: Case) -> Outcome:
        body = case.body() if callable(case.body) else case.body
        bodies = [body] if isinstance(body, Message | bytes) else list(body)
        data = [one if isinstance(one, bytes) else one.SerializeToString() for one in bodies]
        path = case.method if case.method.startswith("/") else f"/nearline.v1.{case.method}"
        given: dict[str, Any] = {"timeout": case.timeout_s, "metadata": case.metadata}
        start = time.perf_counter()
        replies: list[bytes] = []
        error: grpc.aio.AioRpcError | None = None
        try:
            # On the wire, one request is a stream of one.
            if isinstance(body, Message | bytes):
                one: Any = self.channel.unary_stream(path)
                call = one(data[0], **given)
            else:
                many: Any = self.channel.stream_stream(path)
                call = many(**given)
                await _send(call, data)
            async for reply in call:
                replies.append(reply)
        except grpc.aio.AioRpcError as caught:
            error = caught
        spent_s = time.perf_counter() - start
        code = OK if error is None else error.code().name
        message = "" if error is None else error.details() or ""
        problem = _problem(case, error, replies)
        return Outcome(code, message, spent_s, problem)


async def _send(call: Any, data: Sequence[bytes]) -> None:
    """Sends the requests of a stream, until the server ends it."""
    for one in data:
        # While a request is being sent, gRPC may lose the error of the server.
        await asyncio.sleep(_PAUSE_S)
        if call.done():
            return
        await call.write(one)
    await call.done_writing()


def _problem(case: Case, error: grpc.aio.AioRpcError | None, replies: Sequence[bytes]) -> str:
    """Returns why an answer is not the one that the case names; empty if it is."""
    if error is None:
        if case.code == REJECTED:
            return _not_rejected(replies)
        return "" if case.code == OK else "it succeeded"
    if error.code().name != case.code:
        return f"not {case.code}"
    if case.says and case.says not in (error.details() or ""):
        return f"does not say {case.says!r}"
    trailers = dict(error.trailing_metadata() or ())
    packed = trailers.get(status.DETAILS_KEY)
    if case.by_grpc and packed is not None:
        return "has details, although gRPC itself should refuse it"
    if case.by_grpc or (case.by_grpc is None and packed is None):
        return ""
    if not isinstance(packed, bytes):
        return "has no details"
    told, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(told)
        detail.Unpack(bad)
    if told.domain != status.DOMAIN or told.reason not in _REASONS[case.code]:
        return f"has reason {told.reason!r} of {told.domain!r}"
    found = bad.field_violations[0].field if bad.field_violations else ""
    if case.field is not None and found != case.field:
        return f"names the field {found!r}, not {case.field!r}"
    return ""


def _not_rejected(replies: Sequence[bytes]) -> str:
    # The results of upserts and deletes have the same numbers.
    results = r.UpsertItemsResponse.FromString(replies[0]).results
    if not results:
        return "it has no results"
    for one in results:
        if one.outcome != r.WriteResult.OUTCOME_REJECTED:
            return f"item {one.id[:40]!r} has outcome {one.outcome}"
        if len(one.id) > MAX_ID_BYTES:
            return f"the rejected id is echoed with {len(one.id):,} characters"
        if one.reason not in ("INVALID_REQUEST", "CONFLICT") or not one.message:
            return f"item {one.id[:40]!r} is rejected for {one.reason!r}: {one.message!r}"
    return ""
