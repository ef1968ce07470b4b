"""Changes of items: contract records to protobuf and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.times import in_utc
from nearline.v1 import embedding_pb2, retrieval_pb2
from nearline.wire.enums import LANE_OF, LANES, OUTCOME_OF, OUTCOMES, lookup
from nearline.wire.items import item_from_proto, item_to_proto
from nearline.wire.limits import BATCH, PART_OF_BATCH, bounded
from nearline.wire.values import time_from_proto

_UINT64 = range(1 << 64)
# Fields of the replies to streams have the names of the outcomes that they count.
_DELETE_OUTCOMES = (c.WriteOutcome.DELETED, c.WriteOutcome.ABSENT, c.WriteOutcome.REJECTED)
_UPSERT_OUTCOMES = tuple(one for one in c.WriteOutcome if one is not c.WriteOutcome.DELETED)


def upsert_request(
    items: Sequence[c.Item],
    collection: str,
    *,
    if_versions: Mapping[str, int] | None = None,
    idempotency_key: str = "",
    only_attributes: bool = False,
    as_of: Mapping[str, datetime] | None = None,
    lane: c.Lane | None = None,
) -> retrieval_pb2.UpsertItemsRequest:
    """Returns the request to add or replace items.

    Raises: InvalidRequest: a value that no message can hold.
    """
    messages = [item_to_proto(item) for item in items]
    with _valid_unicode():
        request = retrieval_pb2.UpsertItemsRequest(
            collection=collection,
            items=messages,
            idempotency_key=idempotency_key,
            if_versions=_checked_versions(if_versions),
            only_attributes=only_attributes,
            lane=embedding_pb2.LANE_UNSPECIFIED if lane is None else LANES[lane],
        )
        for document_id, time in (as_of or {}).items():
            request.as_of[document_id].FromDatetime(in_utc(time))
    return request


def items_of(request: retrieval_pb2.UpsertItemsRequest) -> list[c.Item]:
    """Returns the items of a request.

    Raises: InvalidRequest: an item is malformed; names it.
    """
    items = bounded(request.items, "items", BATCH)
    return [item_from_proto(one, f"items[{at}]") for at, one in enumerate(items)]


def as_of_of(request: retrieval_pb2.UpsertItemsRequest) -> dict[str, datetime]:
    """Returns the times of a request's changes by id.

    Raises: InvalidRequest: a time outside the years 1 to 9999.
    """
    times = bounded(request.as_of.items(), "as_of", PART_OF_BATCH)
    return {key: time_from_proto(time, f"as_of[{key}]") for key, time in times}


def if_versions_of(
    request: retrieval_pb2.UpsertItemsRequest | retrieval_pb2.DeleteItemsRequest,
) -> dict[str, int]:
    """Returns the expected versions of a request by id.

    Raises: InvalidRequest: there are too many.
    """
    return dict(bounded(request.if_versions.items(), "if_versions", PART_OF_BATCH))


def lane_of(request: retrieval_pb2.UpsertItemsRequest) -> c.Lane | None:
    """Returns the lane of a request, or None if it is unspecified.

    Raises: InvalidRequest: an unknown number.
    """
    return lookup(LANE_OF, request.lane, "lane") if request.lane else None


def delete_request(
    ids: Sequence[str],
    collection: str,
    *,
    if_versions: Mapping[str, int] | None = None,
    idempotency_key: str = "",
) -> retrieval_pb2.DeleteItemsRequest:
    """Returns the request to delete items.

    Raises: InvalidRequest: a value that no message can hold.
    """
    with _valid_unicode():
        return retrieval_pb2.DeleteItemsRequest(
            collection=collection,
            ids=ids,
            idempotency_key=idempotency_key,
            if_versions=_checked_versions(if_versions),
        )


def upsert_response(reply: c.WriteReply) -> retrieval_pb2.UpsertItemsResponse:
    """Returns the message of a write reply."""
    return retrieval_pb2.UpsertItemsResponse(
        watermark=reply.watermark, results=map(_result_to_proto, reply.results)
    )


def delete_response(reply: c.WriteReply) -> retrieval_pb2.DeleteItemsResponse:
    """Returns the message of a write reply."""
    return retrieval_pb2.DeleteItemsResponse(
        watermark=reply.watermark, results=map(_result_to_proto, reply.results)
    )


def write_reply(
    message: retrieval_pb2.UpsertItemsResponse | retrieval_pb2.DeleteItemsResponse,
) -> c.WriteReply:
    """Returns the write reply of a message."""
    return c.WriteReply(results=_results(message.results), watermark=message.watermark)


def upsert_stream_response(reply: c.BulkWriteReply) -> retrieval_pb2.UpsertItemsStreamResponse:
    """Returns the message of a bulk reply."""
    return retrieval_pb2.UpsertItemsStreamResponse(
        watermark=reply.watermark,
        rejections=map(_result_to_proto, reply.rejections),
        **{one.value: reply.counts.get(one, 0) for one in _UPSERT_OUTCOMES},
    )


def upsert_stream_reply(message: retrieval_pb2.UpsertItemsStreamResponse) -> c.BulkWriteReply:
    """Returns the bulk reply of a message."""
    return _bulk_reply(message, _UPSERT_OUTCOMES)


def delete_stream_response(reply: c.BulkWriteReply) -> retrieval_pb2.DeleteItemsStreamResponse:
    """Returns the message of a bulk reply."""
    return retrieval_pb2.DeleteItemsStreamResponse(
        watermark=reply.watermark,
        rejections=map(_result_to_proto, reply.rejections),
        **{one.value: reply.counts.get(one, 0) for one in _DELETE_OUTCOMES},
    )


def delete_stream_reply(message: retrieval_pb2.DeleteItemsStreamResponse) -> c.BulkWriteReply:
    """Returns the bulk reply of a message."""
    return _bulk_reply(message, _DELETE_OUTCOMES)


def _bulk_reply(
    message: retrieval_pb2.UpsertItemsStreamResponse | retrieval_pb2.DeleteItemsStreamResponse,
    outcomes: Iterable[c.WriteOutcome],
) -> c.BulkWriteReply:
    return c.BulkWriteReply(
        watermark=message.watermark,
        counts={one: getattr(message, one.value) for one in outcomes},
        rejections=_results(message.rejections),
    )


def _result_to_proto(result: c.WriteResult) -> retrieval_pb2.WriteResult:
    return retrieval_pb2.WriteResult(
        # One that was rejected may be of any length.
        id=result.id[: c.MAX_ID_BYTES],
        outcome=OUTCOMES[result.outcome],
        version=result.version,
        reason=result.reason,
        message=result.message,
    )


def _results(messages: Iterable[retrieval_pb2.WriteResult]) -> list[c.WriteResult]:
    return [
        c.WriteResult(
            id=one.id,
            outcome=lookup(OUTCOME_OF, one.outcome, "results.outcome"),
            version=one.version,
            reason=one.reason,
            message=one.message,
        )
        for one in messages
    ]


def _checked_versions(if_versions: Mapping[str, int] | None) -> Mapping[str, int]:
    versions = if_versions or {}
    for document_id, version in versions.items():
        if version not in _UINT64:
            raise InvalidRequest(
                f"if_versions has {version} for {document_id!r}; versions are 0 or more; "
                "use the value of Item.version",
                field="if_versions",
            )
    return versions


@contextlib.contextmanager
def _valid_unicode() -> Iterator[None]:
    """Converts protobuf's error for an invalid id or key to the service's error."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"an id or key has half a surrogate pair at position {error.start}; it is not valid "
            "Unicode: decode the source with errors='replace'"
        ) from error
