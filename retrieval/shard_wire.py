"""Pure converters between the records of the `Shard` seam and the messages of ShardService."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearline import contract as c
from nearline import wire
from nearline.v1 import retrieval_pb2, shard_pb2
from nearline.vectors import pack, unpack
from retrieval.shard import HitPayload, ShardHits, ShardOptions


def options_to_proto(options: ShardOptions) -> retrieval_pb2.SearchOptions:
    """Gives the message of shard options."""
    return wire.options_to_proto(
        c.SearchOptions(
            k=options.k,
            level=options.level,
            payload=options.payload,
            ef_search=options.ef_search,
            nprobe=options.nprobe,
            exact=options.exact,
        )
    )


def options_from_proto(message: retrieval_pb2.SearchOptions) -> ShardOptions:
    """Gives the shard options of a message."""
    options = wire.options_from_proto(message)
    return ShardOptions.of(options, options.k)


def hits_to_proto(results: Sequence[ShardHits]) -> shard_pb2.SearchShardResponse:
    """Gives the message of the hits of many queries."""
    message = shard_pb2.SearchShardResponse()
    for hits in results:
        target = message.results.add(
            ids=hits.ids,
            scores=hits.scores,
            chunks=hits.chunks,
            starts=hits.starts,
            ends=hits.ends,
        )
        for payload in hits.payloads:
            _fill_payload(target.payloads.add(), payload)
    return message


def hits_from_proto(results: Iterable[shard_pb2.ShardHits]) -> list[ShardHits]:
    """Gives the hits of many queries."""
    return [
        ShardHits(
            list(hits.ids),
            list(hits.scores),
            list(hits.chunks),
            list(hits.starts),
            list(hits.ends),
            [_payload_from_proto(payload) for payload in hits.payloads],
        )
        for hits in results
    ]


def _fill_payload(target: shard_pb2.HitPayload, payload: HitPayload) -> None:
    if payload.title is not None:
        target.title = payload.title
    if payload.text is not None:
        target.text = payload.text
    if payload.attributes is not None:
        for name, value in payload.attributes.items():
            target.attributes[name].CopyFrom(wire.value_to_proto(value))
    if payload.vector is not None:
        target.vector.CopyFrom(pack(payload.vector))


def _payload_from_proto(message: shard_pb2.HitPayload) -> HitPayload:
    return HitPayload(
        message.title if message.HasField("title") else None,
        message.text if message.HasField("text") else None,
        wire.attributes_from_proto(message.attributes),
        unpack(message.vector)[0] if message.HasField("vector") else None,
    )
