"""Reads one Milvus collection: rows that have not expired, as fresh as live changes require."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter
from nearline.errors import DeadlineExceeded, NearlineError, NotReady
from nearline.times import to_us
from retrieval.milvus.filters import MATCH_ALL, filter_expression, quote
from retrieval.milvus.layout import MAX_ROWS, MilvusHit

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient

# Ids per expression: Milvus parses the expression of every call, and a reply must fit into a
# message.
_MAX_IDS = 256
_MAX_BYTES = 16 << 10
# Wait for a load if the caller sets no deadline.
_LOAD_S = 5.0
_R = TypeVar("_R")


@dataclass(slots=True, kw_only=True)
class ReadContext:
    """The state that every read of a collection uses; updated on the event loop as changes arrive.

    seen: Reads see at least the writes up to this server timestamp; 0 means all writes, None that
        nothing was written.
    expiring: Some document expires, so every expression also requires `expires > now`.
    single_valued: Attributes that have no list in any document.
    """

    seen: int | None = None
    expiring: bool = False
    single_valued: frozenset[str] = frozenset()


class MilvusReader:
    """Reads one Milvus collection; belongs to one event loop.

    Every method takes a deadline, a time of the running loop (None uses the timeout of the client),
    and raises the errors of the client. If Milvus has not loaded the collection, for example after
    a restart, the reader loads it and repeats the call once.

    Args:
        client: Client of the Milvus server.
        name: Name of the Milvus collection.
        context: Read context of the collection.
        kinds: Kinds of the attributes, by name.
    """

    def __init__(
        self, client: MilvusClient, name: str, context: ReadContext, kinds: Mapping[str, str]
    ) -> None:
        self.client = client
        self.name = name
        self.context = context
        self.kinds = kinds
        self._loading: asyncio.Task[None] | None = None

    def matching(self, filter: Filter | None, *parts: str) -> str:
        """Returns an expression for the rows that match a filter and have not expired.

        Args:
            filter: Optional; None matches every row.
            parts: Further expressions that rows must match.
        Returns: The expression; empty if every row matches.
        Raises: See `filters.filter_expression`.
        """
        every = list(parts)
        if filter is not None:
            every.append(filter_expression(filter, self.kinds, self.context.single_valued))
        if self.context.expiring:
            every.append(f"expires > {to_us(datetime.now(UTC))}")
        return every[0] if len(every) == 1 else " and ".join(f"({one})" for one in every)

    async def search(
        self,
        queries: NDArray[np.float32] | Sequence[str],
        k: int,
        expression: str,
        fields: Sequence[str],
        ef: int | None,
        deadline: float | None,
    ) -> list[list[MilvusHit]]:
        """Returns the k best rows of each vector or text; see `MilvusClient.search`."""
        search = partial(self.client.search, self.name, queries, k, expression=expression)
        return await self._retry_after_load(partial(search, fields=fields, ef=ef), deadline)

    async def query(
        self, expression: str, fields: Sequence[str], limit: int, deadline: float | None
    ) -> list[Mapping[str, Any]]:
        """Reads the first rows in the order of their keys; see `MilvusClient.query`."""
        query = partial(self.client.query, self.name, expression, fields, limit=limit)
        return await self._retry_after_load(query, deadline)

    async def pages(
        self, expression: str, fields: Sequence[str], deadline: float | None
    ) -> AsyncIterator[list[Mapping[str, Any]]]:
        """Yields all rows that match an expression, in the order of their keys, in pages."""
        wanted = expression or MATCH_ALL
        page = await self.query(wanted, fields, MAX_ROWS, deadline)
        while page:
            yield page
            if len(page) < MAX_ROWS:
                return
            rest = f"({wanted}) and key > {quote(page[-1]['key'])}"
            page = await self.query(rest, fields, MAX_ROWS, deadline)

    async def count(self, expression: str, deadline: float | None) -> int:
        """Counts the rows that match an expression."""
        return await self._retry_after_load(
            partial(self.client.count, self.name, expression), deadline
        )

    async def close(self) -> None:
        """Cancels a load in progress."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))

    async def _retry_after_load(
        self, call: Callable[..., Awaitable[_R]], deadline: float | None
    ) -> _R:
        """Makes a call of the client, which takes `seen` and `timeout_s`."""
        seen = self.context.seen
        try:
            return await call(seen=seen, timeout_s=_remaining_s(deadline))
        except NotReady:
            if self.client.outage:
                raise
        # The server has restarted, or a different router has released the collection.
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._load())
        remaining_s = _remaining_s(deadline)
        await asyncio.wait(
            (self._loading,), timeout=_LOAD_S if remaining_s is None else remaining_s
        )
        return await call(seen=seen, timeout_s=_remaining_s(deadline))

    async def _load(self) -> None:
        # A failure shows in the next call.
        with contextlib.suppress(NearlineError):
            await self.client.load(self.name)


def in_batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yields ids or keys in lists that are short enough for one expression."""
    batch: list[str] = []
    size = 0
    for one in ids:
        size += len(one.encode()) + 4
        if batch and (len(batch) == _MAX_IDS or size > _MAX_BYTES):
            yield batch
            batch, size = [], len(one.encode()) + 4
        batch.append(one)
    if batch:
        yield batch


def _remaining_s(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise DeadlineExceeded(
            "the deadline passed before the call to Milvus; raise the timeout, or lower the load"
        )
    return left
