"""Recommendations, interactions and user data: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.v1 import retrieval_pb2
from nearline.wire.enums import (
    CAUSE_OF,
    CAUSES,
    IGNORED,
    lookup,
    payload_from_proto,
    payload_to_proto,
)
from nearline.wire.filters import filter_to_proto
from nearline.wire.limits import BATCH, IMPORT_ROWS, LIMITS, bounded
from nearline.wire.queries import check_uint32, filter_of
from nearline.wire.raw_hits import RawHits
from nearline.wire.replies import (
    fill_hit,
    fill_info,
    hit_from_proto,
    ignored_from_proto,
    info_from_proto,
)
from nearline.wire.values import (
    attributes_from_proto,
    time_from_proto,
    timestamp,
    user_attributes,
    values_by_name,
)


def recommend_request(
    audience: c.Audience, options: c.RecommendOptions, collection: str
) -> retrieval_pb2.RecommendRequest:
    """Returns the request for a list.

    Raises: InvalidRequest: a number that no message can hold.
    """
    check_uint32(options.n, "n", c.MAX_RECOMMENDED)
    return retrieval_pb2.RecommendRequest(
        collection=collection,
        user_id=audience.user_id,
        session_id=audience.session_id,
        item_ids=audience.item_ids,
        surface=audience.surface,
        n=options.n,
        exclude_ids=options.exclude_ids,
        filter=None if options.filter is None else filter_to_proto(options.filter),
        payload=payload_to_proto(options.payload),
        diversity=options.diversity,
        explain=options.explain,
        min_watermark=options.min_watermark,
        why_not_id=options.why_not_id,
        popularity_debias=options.popularity_debias,
        context=values_by_name(audience.context),
        unrecorded=options.unrecorded,
    )


def audience_from_proto(message: retrieval_pb2.RecommendRequest) -> c.Audience:
    """Returns the audience of a request."""
    return c.Audience(
        user_id=message.user_id,
        session_id=message.session_id,
        item_ids=tuple(bounded(message.item_ids, "item_ids", LIMITS["RecommendRequest.item_ids"])),
        surface=message.surface or c.DEFAULT_SURFACE,
        context=user_attributes(message.context, "context"),
    )


def recommend_options(message: retrieval_pb2.RecommendRequest) -> c.RecommendOptions:
    """Returns the options of a list.

    Raises: InvalidRequest: a malformed filter, or an unknown payload field.
    """
    return c.RecommendOptions(
        n=message.n if message.HasField("n") else c.DEFAULT_N,
        exclude_ids=tuple(
            bounded(message.exclude_ids, "exclude_ids", LIMITS["RecommendRequest.exclude_ids"])
        ),
        filter=filter_of(message),
        payload=payload_from_proto(message.payload),
        diversity=message.diversity if message.HasField("diversity") else None,
        explain=message.explain,
        min_watermark=message.min_watermark,
        why_not_id=message.why_not_id,
        popularity_debias=message.popularity_debias
        if message.HasField("popularity_debias")
        else None,
        unrecorded=message.unrecorded,
    )


def recommend_response(reply: c.RecommendReply) -> retrieval_pb2.RecommendResponse:
    """Returns the message of a list."""
    message = retrieval_pb2.RecommendResponse(policy=reply.policy, story=reply.story)
    if isinstance(reply.recommendations, RawHits):
        message.MergeFromString(b"".join(reply.recommendations.messages))
    else:
        add = message.recommendations.add
        for one in reply.recommendations:
            target = add(reasons=one.reasons, propensity=one.propensity)
            fill_hit(target.hit, one.hit)
    for ignored in reply.ignored_ids:
        message.ignored_ids.add(id=ignored.id, reason=IGNORED[ignored.reason])
    fill_info(message.info, reply.info)
    if reply.why_not is not None:
        why = reply.why_not
        message.why_not.id, message.why_not.cause = why.id, CAUSES[why.cause]
        message.why_not.rank, message.why_not.message = why.rank, why.message
    return message


def recommend_reply(message: retrieval_pb2.RecommendResponse) -> c.RecommendReply:
    """Returns the list of a message."""
    why = None
    if message.HasField("why_not"):
        cause = lookup(CAUSE_OF, message.why_not.cause, "why_not.cause")
        one = message.why_not
        why = c.WhyNot(id=one.id, cause=cause, rank=one.rank, message=one.message)
    return c.RecommendReply(
        recommendations=[
            c.Recommendation(
                hit=hit_from_proto(one.hit),
                reasons=tuple(one.reasons),
                propensity=one.propensity if one.HasField("propensity") else None,
            )
            for one in message.recommendations
        ],
        ignored_ids=ignored_from_proto(message.ignored_ids),
        info=info_from_proto(message.info),
        policy=message.policy,
        why_not=why,
        story=tuple(message.story),
    )


def interaction_to_proto(interaction: c.Interaction) -> retrieval_pb2.Interaction:
    """Returns the message of an interaction."""
    return retrieval_pb2.Interaction(
        user_id=interaction.user_id,
        session_id=interaction.session_id,
        item_id=interaction.item_id,
        kind=interaction.kind,
        time=timestamp(interaction.time),
        weight=interaction.weight,
        list_id=interaction.list_id,
        position=interaction.position,
        event_id=interaction.event_id,
    )


def interactions_from_proto(
    messages: Sequence[retrieval_pb2.Interaction],
) -> Sequence[c.Interaction]:
    """Returns the interactions of messages.

    Raises: InvalidRequest: there are too many, or a time is outside the years 1 to 9999.
    """
    return [
        _interaction(one, f"interactions[{at}]", one.kind or c.DEFAULT_KIND)
        for at, one in enumerate(bounded(messages, "interactions", BATCH))
    ]


def import_request(
    columns: c.InteractionColumns, import_id: str, first_row: int, collection: str
) -> retrieval_pb2.ImportInteractionsRequest:
    """Returns the message of a batch of an import.

    Raises: InvalidRequest: a value that no message can hold.
    """
    try:
        return retrieval_pb2.ImportInteractionsRequest(
            request=retrieval_pb2.InteractionBatch(
                collection=collection,
                import_id=import_id,
                first_row=first_row,
                **columns._asdict(),
            )
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"a column holds a value of another type: {error}; send ids and kinds as text in "
            "Unicode, times in whole microseconds",
            field="batches",
        ) from error


def columns_of(message: retrieval_pb2.InteractionBatch) -> c.InteractionColumns:
    """Returns the columns of a batch. Raises: InvalidRequest: it has too many rows."""
    return c.InteractionColumns(
        *(
            list(bounded(getattr(message, name), name, IMPORT_ROWS))
            for name in c.InteractionColumns._fields
        )
    )


def user_response(record: c.UserRecord) -> retrieval_pb2.GetUserResponse:
    """Returns the message of a user's data."""
    return retrieval_pb2.GetUserResponse(
        interactions=map(interaction_to_proto, record.interactions),
        learned=map(interaction_to_proto, record.learned),
        delete_time=timestamp(record.deleted),
        attributes=values_by_name(record.attributes),
    )


def user_record(message: retrieval_pb2.GetUserResponse) -> c.UserRecord:
    """Returns the user's data of a message."""
    deleted = message.delete_time.ToDatetime(UTC) if message.HasField("delete_time") else None
    return c.UserRecord(
        interactions=[_interaction(one, "interactions", one.kind) for one in message.interactions],
        learned=[_interaction(one, "learned", one.kind) for one in message.learned],
        deleted=deleted,
        attributes=attributes_from_proto(message.attributes),
    )


def deletion_response(receipt: c.DeletionReceipt) -> retrieval_pb2.DeleteUserResponse:
    """Returns the message of a deletion receipt."""
    return retrieval_pb2.DeleteUserResponse(
        delete_time=timestamp(receipt.deleted),
        interactions=receipt.interactions,
        log_entries=receipt.log_entries,
        sessions=receipt.sessions,
        snapshots=[
            retrieval_pb2.SnapshotInfluence(snapshot_id=one.snapshot_id, in_force=one.in_force)
            for one in receipt.snapshots
        ],
        imports_left_out=receipt.imports_left_out,
        attributes=receipt.attributes,
        recorded_requests=receipt.recorded_requests,
    )


def deletion_receipt(message: retrieval_pb2.DeleteUserResponse) -> c.DeletionReceipt:
    """Returns the deletion receipt of a message."""
    return c.DeletionReceipt(
        deleted=message.delete_time.ToDatetime(UTC),
        interactions=message.interactions,
        log_entries=message.log_entries,
        sessions=message.sessions,
        snapshots=[c.Influence(one.snapshot_id, one.in_force) for one in message.snapshots],
        imports_left_out=message.imports_left_out,
        attributes=message.attributes,
        recorded_requests=message.recorded_requests,
    )


def _interaction(message: retrieval_pb2.Interaction, field: str, kind: str) -> c.Interaction:
    return c.Interaction(
        item_id=message.item_id,
        user_id=message.user_id,
        session_id=message.session_id,
        kind=kind,
        time=time_from_proto(message.time, f"{field}.time") if message.HasField("time") else None,
        weight=message.weight if message.HasField("weight") else None,
        list_id=message.list_id,
        position=message.position if message.HasField("position") else None,
        event_id=message.event_id,
    )


def recommendation_to_bytes(hit: c.Hit) -> bytes:
    """Encodes a recommendation without reasons as a RecommendResponse with nothing else."""
    message = retrieval_pb2.RecommendResponse()
    fill_hit(message.recommendations.add().hit, hit)
    return message.SerializeToString()


def recommended_hit_from_bytes(message: bytes) -> c.Hit:
    """Decodes the output of `recommendation_to_bytes`."""
    return hit_from_proto(
        retrieval_pb2.RecommendResponse.FromString(message).recommendations[0].hit
    )


def lazy_recommendations(messages: Sequence[bytes]) -> RawHits[c.Recommendation]:
    """Returns recommendations that are decoded on access."""
    return RawHits(
        messages, lambda message: c.Recommendation(hit=recommended_hit_from_bytes(message))
    )
