"""Reads of one collection of Milvus: of what is alive in it, as new as live changes ask."""

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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter
from nearline.errors import DeadlineExceeded, NearlineError, NotReady
from nearline.times import to_us
from retrieval.milvus.filters import MATCH_ALL, filter_expression, partition_expression, quote
from retrieval.milvus.layout import MAX_ROWS, MilvusHit

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient

# Ids of one expression: Milvus parses it again each time, and an answer must fit in a message.
_MAX_IDS = 256
_MAX_BYTES = 16 << 10
# For a load, where whoever asks sets no deadline.
_LOAD_S = 5.0
_R = TypeVar("_R")


@dataclass(slots=True, kw_only=True)
class ReadContext:
    """What every read of a collection depends on; updated on the event loop as changes arrive.

    seen: Reads see at least the writes up to this server timestamp; 0: all writes; None: nothing
        was written.
    expiring: Some document expires, so every expression also requires `expires > now`.
    single_valued: Attributes that have no list in any document.
    partition_by: Attribute that the collection is partitioned by; empty: it is not partitioned.
    """

    seen: int | None = None
    expiring: bool = False
    single_valued: frozenset[str] = frozenset()
    partition_by: str = ""


class MilvusReader:
    """Reads of one collection of Milvus; belongs to one event loop.

    Every method takes a deadline, a time of the running loop (None: the limit of the client), and
    raises what the client does. Where Milvus says that it has not loaded the collection, as after a
    start again, it is asked to, and then once more what was asked.

    Args:
        client: The Milvus.
        name: The collection of it.
        context: What reads must know of it.
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
        """Writes an expression that finds what is alive, matches, and meets all other parts.

        Args:
            filter: None: everything matches.
            parts: Expressions.
        Returns: Empty where all there is is wanted.
        Raises: see `filters.expression`.
        """
        every = list(parts)
        if filter is not None:
            single_valued, partition_by = self.context.single_valued, self.context.partition_by
            every.append(filter_expression(filter, self.kinds, single_valued))
            if partition_by in single_valued:
                every += partition_expression(filter, partition_by)
        if self.context.expiring:
            every.append(f"expires > {to_us(datetime.now(UTC))}")
        return every[0] if len(every) == 1 else " and ".join(f"({one})" for one in every)

    async def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        expression: str,
        fields: Sequence[str],
        ef: int | None,
        deadline: float | None,
    ) -> list[list[MilvusHit]]:
        """Finds the k best rows for each vector; see `MilvusClient.search`."""
        return await self._retry_after_load(
            lambda timeout_s: self.client.search(
                self.name,
                vectors,
                k,
                expression=expression,
                fields=fields,
                ef=ef,
                seen=self.context.seen,
                timeout_s=timeout_s,
            ),
            deadline,
        )

    async def search_words(
        self,
        texts: Sequence[str],
        k: int,
        expression: str,
        fields: Sequence[str],
        deadline: float | None,
    ) -> list[list[MilvusHit]]:
        """Finds the k best rows for the words of each text; see `MilvusClient.search_words`."""
        return await self._retry_after_load(
            lambda timeout_s: self.client.search_words(
                self.name,
                texts,
                k,
                expression=expression,
                fields=fields,
                seen=self.context.seen,
                timeout_s=timeout_s,
            ),
            deadline,
        )

    async def query(
        self, expression: str, fields: Sequence[str], limit: int, deadline: float | None
    ) -> list[Mapping[str, Any]]:
        """Reads the first rows in the order of their keys; see `MilvusClient.query`."""
        return await self._retry_after_load(
            lambda timeout_s: self.client.query(
                self.name,
                expression,
                fields,
                limit=limit,
                seen=self.context.seen,
                timeout_s=timeout_s,
            ),
            deadline,
        )

    async def pages(
        self, expression: str, fields: Sequence[str], deadline: float | None
    ) -> AsyncIterator[list[Mapping[str, Any]]]:
        """Reads all rows that an expression finds, in the order of their keys, page after page."""
        wanted = expression or MATCH_ALL
        page = await self.query(wanted, fields, MAX_ROWS, deadline)
        while page:
            yield page
            if len(page) < MAX_ROWS:
                return
            rest = f"({wanted}) and key > {quote(page[-1]['key'])}"
            page = await self.query(rest, fields, MAX_ROWS, deadline)

    async def count(self, expression: str, deadline: float | None) -> int:
        """Counts rows."""
        return await self._retry_after_load(
            lambda timeout_s: self.client.count(
                self.name, expression, seen=self.context.seen, timeout_s=timeout_s
            ),
            deadline,
        )

    async def close(self) -> None:
        """Waits for nothing any more."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))

    async def _retry_after_load(
        self, call: Callable[[float | None], Awaitable[_R]], deadline: float | None
    ) -> _R:
        try:
            return await call(_remaining_s(deadline))
        except NotReady:
            if self.client.outage:
                raise
        # It was started again, or another router took the collection for unused.
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._load())
        remaining_s = _remaining_s(deadline)
        await asyncio.wait(
            (self._loading,), timeout=_LOAD_S if remaining_s is None else remaining_s
        )
        return await call(_remaining_s(deadline))

    async def _load(self) -> None:
        # Whoever asked is told by its next call.
        with contextlib.suppress(NearlineError):
            await self.client.load(self.name)


def in_batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Cuts ids, or keys, into lists that make good expressions."""
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
            "the time was up before Milvus was asked; raise the timeout, or lower the load"
        )
    return left
