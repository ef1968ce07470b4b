"""Writes items: validates and embeds changes, then appends them durably to the change log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.access.readers import Ownership
from nearline.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NearlineError,
    NotReady,
    PermissionDenied,
)
from nearline.items.sizes import attributes_bytes, attributes_error
from nearline.store.snapshot import partition_of, shard_of
from nearline.times import in_utc, to_us
from nearline.tracing.spans import stage
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite, added_bytes
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics
from retrieval.protocols.watermark import decode_watermark, merge_watermarks
from retrieval.rollout.collections import ServedCollections
from retrieval.search import item_lookup
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from retrieval.writes.bulk import WriteBatch, write_batches
from retrieval.writes.feed_block import FeedBlock
from retrieval.writes.item_quota import ItemQuota
from retrieval.writes.validation import (
    attributes_change,
    check_request,
    check_times,
    delete_change,
    upsert_change,
    valid_ids,
)

# Wait for versions from shards: this long, or half of the remaining time of the caller.
_VERSIONS_S = 2.0
_VERSIONS_RATIO = 0.5
_NO_PAYLOAD: frozenset[c.PayloadField] = frozenset()
_ATTRIBUTES = frozenset({c.PayloadField.ATTRIBUTES})


class KnownItems(NamedTuple):
    """Versions of items in the served snapshot.

    versions: Version by id.
    away: Shards that did not answer.
    positions: Log position by partition up to which an item that was not found is absent: of the
        snapshot, or later; empty if it belongs to another log.
    foreign: Ids of items that the caller may not write.
    attributes: Attributes by id; empty ones if they were not needed.
    """

    versions: Mapping[str, int]
    away: frozenset[int]
    positions: Sequence[int]
    foreign: frozenset[str] = frozenset()
    attributes: Mapping[str, c.Attributes] = {}


async def read_known_items(
    served: ServedCollection,
    ids: Sequence[str],
    deadline: float | None,
    log: ChangeLog,
    conditions: _WriteConditions,
) -> KnownItems:
    """Reads the versions of items from the shards, without waiting for unavailable ones.

    For an owner, also whose they are, in a state that has all changes made until now.
    """
    now = asyncio.get_running_loop().time()
    timeout_s = _VERSIONS_S
    if deadline is not None:
        timeout_s = min(timeout_s, _VERSIONS_RATIO * (deadline - now))
    owner = conditions.owner
    exact = owner is not None or 0 in conditions.if_versions.values()
    head = (await log.state()).head if exact else None
    context = RequestContext(now + timeout_s, None if owner is None else head)
    payload = _ATTRIBUTES if owner or conditions.only_attributes else _NO_PAYLOAD
    usable_ids = valid_ids(ids)
    if not usable_ids:
        return KnownItems({}, frozenset(), ())
    try:
        found = await item_lookup.fetch_items(served, usable_ids, payload, context)
    except (NotReady, DeadlineExceeded):
        return KnownItems({}, frozenset(range(len(served.shards))), ())
    versions = {document_id: item.version for document_id, item in found.items.items()}
    followed = tuple(one.watermark for one in context.applied.values())
    known = served.watermark
    if head and followed:
        # The log still has the versions of items that have expired in the shards.
        known = merge_watermarks((head.limited(merge_watermarks(followed)), known))
    same_log = {one.log_id for one in followed} == {known.log_id}
    return KnownItems(
        versions,
        frozenset(context.failures),
        known.positions if same_log else (),
        frozenset(
            name
            for name, item in found.items.items()
            if owner is not None and not owner.includes(item.attributes)
        ),
        {name: item.attributes for name, item in found.items.items()},
    )


# Requests with up to this many chunks use the interactive lane, larger ones the bulk lane.
_INTERACTIVE_CHUNKS = 64
_OWNER_ATTEMPTS = 5
# Returns the changes of a request in order, with an error in place of each rejected change.
_MakeChanges: TypeAlias = Callable[[ServedCollection], Sequence[Change | NearlineError]]
# Raises InvalidRequest if the backend cannot store a change; runs in any thread.
CheckChange: TypeAlias = Callable[[ServedCollection, Change], None]


@dataclass(frozen=True, slots=True)
class _WriteConditions:
    """Options of a write request; see UpsertItemsRequest in retrieval.proto.

    owner: The items that the caller may write; None: all. only_attributes: Other attributes of the
        items are kept.
    """

    if_versions: Mapping[str, int]
    idempotency_key: str
    as_of: Mapping[str, datetime] = field(default_factory=dict)
    lane: c.Lane | None = None
    owner: Ownership | None = None
    only_attributes: bool = False

    def of_attempt(self, number: int) -> _WriteConditions:
        """Returns the conditions of another attempt, whose key is another, too."""
        if not self.idempotency_key:
            return self
        whole = f"{self.idempotency_key}:{number}".encode()
        return replace(self, idempotency_key=sha256(whole).hexdigest())


class Writer:
    """Writes items; an `ItemWriter`.

    Args:
        collections: Served collections; they determine chunking, embedding and existing items.
        embedders: Embeds texts.
        log_of: Returns the change log of a collection; raises Unsupported if there is none.
        check: Optional; checks the limits of the backend. None disables the check.
        owner: Returns which items the caller of the running request may write. Optional; None: all.
        quota: Limits the items of a tenant. Optional; None: no limit.
        feed_block: Refuses upserts while a resource is nearly full. Optional; None accepts all.
    """

    def __init__(
        self,
        collections: ServedCollections,
        embedders: Embedders,
        log_of: Callable[[str], ChangeLog],
        check: CheckChange | None = None,
        owner: Callable[[], Ownership | None] = lambda: None,
        feed_block: FeedBlock | None = None,
        quota: ItemQuota | None = None,
    ) -> None:
        self._quota = quota
        self._feed_block = feed_block or FeedBlock(())
        self._owner = owner
        self._collections = collections
        self._embedders = embedders
        self._log_of = log_of
        self._check = check

    async def upsert_items(
        self,
        items: Sequence[c.Item],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        only_attributes: bool = False,
        as_of: Mapping[str, datetime] | None = None,
        lane: c.Lane | None = None,
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Adds or replaces items; see `ItemWriter.upsert_items`."""
        self._feed_block.check("upserts")
        make = attributes_change if only_attributes else upsert_change
        owner = self._owner()
        conditions = _WriteConditions(
            if_versions or {}, idempotency_key, as_of or {}, lane, owner, only_attributes
        )

        def change_of(item: c.Item, served: ServedCollection) -> Change:
            change = make(item, served)
            if owner is not None and only_attributes:
                owner.check(change.attributes)
            elif owner is not None:
                claimed = owner.claim(change.attributes, served.single_valued)
                change = replace(change, attributes=claimed)
            if self._check is not None:
                self._check(served, change)
            return change

        def changes(served: ServedCollection) -> Sequence[Change | NearlineError]:
            return [_attempt(partial(change_of, item, served)) for item in items]

        ids = [item.id for item in items]
        check_request(ids, conditions.if_versions, idempotency_key, "items")
        check_times(ids, conditions.as_of, whole=not only_attributes)
        return await self._write(ids, changes, collection, conditions, timeout_s)

    async def delete_items(
        self,
        ids: Sequence[str],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Deletes items; see `ItemWriter.delete_items`."""

        def changes(served: ServedCollection) -> Sequence[Change | NearlineError]:
            return [_attempt(partial(delete_change, document_id)) for document_id in ids]

        conditions = _WriteConditions(if_versions or {}, idempotency_key, owner=self._owner())
        check_request(ids, conditions.if_versions, idempotency_key, "ids")
        return await self._write(ids, changes, collection, conditions, timeout_s)

    async def upsert_batches(
        self, batches: AsyncIterable[Sequence[c.Item]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        """Adds or replaces the items of many batches; see `ItemWriter.upsert_batches`."""

        async def calls() -> AsyncIterator[WriteBatch]:
            async for items in batches:
                yield partial(self.upsert_items, items, collection=collection)

        return await write_batches(calls())

    async def delete_batches(
        self, batches: AsyncIterable[Sequence[str]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        """Deletes the items of many batches; see `ItemWriter.delete_batches`."""

        async def calls() -> AsyncIterator[WriteBatch]:
            async for ids in batches:
                yield partial(self.delete_items, ids, collection=collection)

        return await write_batches(calls())

    async def _write(
        self,
        ids: Sequence[str],
        make: _MakeChanges,
        collection: str,
        conditions: _WriteConditions,
        timeout_s: float | None,
    ) -> c.WriteReply:
        """Writes changes; for an owner, looks again at items that somebody changed meanwhile."""
        start = asyncio.get_running_loop().time()
        deadline = None if timeout_s is None else start + timeout_s
        reply = await self._write_once(ids, make, collection, conditions, deadline)
        if conditions.owner is None:
            return reply
        for attempt in range(1, _OWNER_ATTEMPTS):
            asked = conditions.if_versions
            left = {
                one.id
                for one in reply.results
                if one.reason == Conflict.reason and one.id not in asked
            }
            if not left:
                break
            again = await self._write_once(
                [one for one in ids if one in left],
                lambda served, left=left: [  # type: ignore[misc]
                    change for one, change in zip(ids, make(served), strict=True) if one in left
                ],
                collection,
                conditions.of_attempt(attempt),
                deadline,
            )
            newer = {one.id: one for one in again.results}
            marks = [decode_watermark(one.watermark) for one in (reply, again) if one.watermark]
            reply = c.WriteReply(
                results=[newer.get(one.id, one) for one in reply.results],
                watermark=merge_watermarks(tuple(marks)).encode() if marks else b"",
            )
        return reply

    async def _write_once(
        self,
        ids: Sequence[str],
        make: _MakeChanges,
        collection: str,
        conditions: _WriteConditions,
        deadline: float | None,
    ) -> c.WriteReply:
        log = self._log_of(collection)
        start = asyncio.get_running_loop().time()

        async def prepare(served: ServedCollection) -> list[ChangeWrite | c.WriteResult]:
            changes, known = await asyncio.gather(
                self._embed(served, make, conditions.lane, deadline),
                read_known_items(served, ids, deadline, log, conditions),
            )
            if self._quota is not None and conditions.owner is not None:
                changes = await self._quota.refuse_beyond(
                    served, conditions.owner, changes, known.versions, deadline
                )
            return [
                _make_write(document_id, change, conditions, known, served)
                for document_id, change in zip(ids, changes, strict=True)
            ]

        prepared = await self._collections.answer(collection, prepare)
        writes = [one for one in prepared if isinstance(one, ChangeWrite)]
        results = {one.id: one for one in prepared if isinstance(one, c.WriteResult)}
        watermark = b""
        if writes:
            left_s, size = _remaining_s(deadline), await asyncio.to_thread(added_bytes, writes)
            with self._feed_block.adding("upserts", size), stage("append to change log"):
                appended = await log.append(writes, conditions.idempotency_key, left_s)
            watermark = appended.watermark.encode()
            for write, written in zip(writes, appended.results, strict=True):
                document_id = write.change.document_id
                results[document_id] = c.WriteResult(id=document_id, **written._asdict())
        metrics.write_seconds.labels(collection).observe(asyncio.get_running_loop().time() - start)
        for result in results.values():
            metrics.writes.labels(collection, result.outcome.value).inc()
        return c.WriteReply(results=[results[one] for one in ids], watermark=watermark)

    async def _embed(
        self,
        served: ServedCollection,
        make: _MakeChanges,
        lane: c.Lane | None,
        deadline: float | None,
    ) -> Sequence[Change | NearlineError]:
        """Returns the changes with their vectors."""
        # In a thread, since chunking long texts takes time.
        changes = list(await asyncio.to_thread(make, served))
        if not served.has_model:
            return changes
        texts: list[str] = []
        places: list[tuple[int, slice]] = []
        for number, change in enumerate(changes):
            if isinstance(change, Change) and change.kind is ChangeKind.UPSERT:
                places.append((number, slice(len(texts), len(texts) + len(change.bounds))))
                texts += change.texts
        if not texts:
            return changes
        if lane is None:
            lane = c.Lane.INTERACTIVE if len(texts) <= _INTERACTIVE_CHUNKS else c.Lane.BULK
        embedded, extra = await asyncio.gather(
            self._embedders.embed_documents(
                texts, served.fingerprint, lane, _remaining_s(deadline)
            ),
            self._embed_for_canary(served, texts, lane, deadline),
        )
        for number, rows in places:
            change = changes[number]
            assert isinstance(change, Change)
            refused = [
                embedded.refused[at]
                for at in range(rows.start, rows.stop)
                if at in embedded.refused
            ]
            changes[number] = (
                InvalidRequest(f"the embedder rejects the text: {refused[0].message}")
                if refused
                else replace(
                    change,
                    vectors={
                        served.fingerprint: embedded.vectors[rows],
                        **{name: vectors[rows] for name, vectors in extra.items()},
                    },
                )
            )
        return changes

    async def _embed_for_canary(
        self, served: ServedCollection, texts: Sequence[str], lane: c.Lane, deadline: float | None
    ) -> Mapping[str, NDArray[np.float32]]:
        """Embeds texts with the model of a canary if it differs from the current one.

        Returns: Vectors by fingerprint; empty after an error, in which case followers embed the
            texts themselves.
        """
        canary = self._collections.canary(served.name)
        if canary is None or canary.fingerprint in ("", served.fingerprint):
            return {}
        try:
            embedded = await self._embedders.embed_documents(
                texts, canary.fingerprint, lane, _remaining_s(deadline)
            )
        except NearlineError:
            return {}
        return {} if embedded.refused else {canary.fingerprint: embedded.vectors}


def _attempt(make: Callable[[], Change]) -> Change | NearlineError:
    try:
        return make()
    except (InvalidRequest, PermissionDenied) as error:
        return error


def _make_write(
    document_id: str,
    change: Change | NearlineError,
    conditions: _WriteConditions,
    known: KnownItems,
    served: ServedCollection,
) -> ChangeWrite | c.WriteResult:
    if isinstance(change, NearlineError):
        return _rejected_result(document_id, change)
    if document_id in known.foreign:
        return _rejected_result(
            document_id,
            PermissionDenied("the id is that of an item of somebody else; choose another id"),
        )
    if change.kind is ChangeKind.ATTRIBUTES:
        old = known.attributes.get(document_id, {})
        merged = {name: v for name, v in {**old, **change.attributes}.items() if v is not None}
        # An item that a build made larger may be changed, but not grow.
        if attributes_bytes(merged) > max(c.MAX_ATTRIBUTES_BYTES, attributes_bytes(old)):
            return _rejected_result(document_id, attributes_error())
    if_version = conditions.if_versions.get(document_id)
    place = conditions.as_of.get(document_id)
    as_of_us = None if place is None else to_us(in_utc(place))
    shard = shard_of(document_id, len(served.shards))
    if shard in known.away:
        by_version = if_version is not None or change.kind is ChangeKind.ATTRIBUTES
        if by_version or conditions.owner is not None:
            return _rejected_result(
                document_id,
                NotReady(
                    f"shard {shard} does not answer, so the state of the item is unknown; try "
                    "again later"
                ),
            )
        # A delete is written anyway, since deleting a missing item does no harm.
        base = 0 if change.kind is ChangeKind.DELETE else None
        return ChangeWrite(change, None, base, as_of_us=as_of_us)
    position = known.positions[partition_of(document_id)] if known.positions else 0
    of_owner = conditions.owner is not None and if_version is None
    if of_owner:
        # Whose the item is was read before; nobody may have replaced it since.
        if_version = known.versions.get(document_id, 0)
    base = known.versions.get(document_id)
    return ChangeWrite(change, if_version, base, position, as_of_us, of_owner)


def _rejected_result(document_id: str, error: NearlineError) -> c.WriteResult:
    return c.WriteResult(
        id=document_id,
        outcome=c.WriteOutcome.REJECTED,
        reason=error.reason,
        message=error.message,
    )


def _remaining_s(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise DeadlineExceeded(
            "the deadline passed before the items were written; none was written: raise the "
            "timeout, or send fewer items at once"
        )
    return left
