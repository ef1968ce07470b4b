"""A retrieval service of tests, which takes as long as they want."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nearline.serving import Registration
from nearline.tracing.spans import current_span
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc, types_pb2


class Retrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers every search alike.

    takes_s: Seconds that it takes. error: What it raises then. inner: What it awaits before.
    metadata: Of the last call. spans: Whether each call was recorded, so far.
    """

    def __init__(
        self, takes_s: float = 0.0, inner: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self.takes_s = takes_s
        self.error: Exception | None = None
        self.inner = inner
        self.metadata: dict[str, Any] = {}
        self.recorded: list[bool] = []

    async def Search(self, request: Any, context: Any) -> retrieval_pb2.SearchResponse:
        self.metadata = dict(context.invocation_metadata())
        self.recorded.append(current_span() is not None)
        if self.inner is not None:
            await self.inner()
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        coverage = types_pb2.Coverage(shards_answered=2, shards_total=2)
        live = types_pb2.ServedBy(source=types_pb2.ServedBy.SOURCE_LIVE)
        info = types_pb2.ReplyInfo(epoch=1, snapshot_id="s1", coverage=coverage, served_by=live)
        return retrieval_pb2.SearchResponse(info=info)


def registration(retrieval: Retrieval) -> Registration:
    """Returns what hosts it."""

    def add(server: Any) -> None:
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(retrieval, server)

    return Registration("nearline.v1.RetrievalService", add)
