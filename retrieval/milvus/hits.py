"""Converts rows of Milvus into hits of a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nearline.contract import PayloadField
from retrieval.milvus.rows import first_attribute_value, parse_attributes
from retrieval.milvus.top_units import RankedRow
from retrieval.protocols.shard import HitPayload, ShardFilterPlan, ShardHits, ShardOptions

# Field of a row that holds each part of a payload.
PAYLOAD_FIELDS = {
    PayloadField.TITLE: "title",
    PayloadField.TEXT: "passage",
    PayloadField.ATTRIBUTES: "attributes",
    PayloadField.VECTOR: "vector",
}


def rows_to_hits(
    rows: Sequence[RankedRow],
    options: ShardOptions,
    kinds: Mapping[str, str],
    plan: ShardFilterPlan | None,
) -> ShardHits:
    """Returns the hits of one query.

    Args:
        rows: Rows, best first, with start, stop and the fields that the options need.
        options: Options of the search.
        kinds: Kinds of the attributes, by name.
        plan: How the filter was applied; None without a filter.
    """
    fields = [row.fields for row in rows]
    hits = ShardHits(
        [row.id for row in rows],
        [-row.negated for row in rows],
        [row.chunk for row in rows],
        [one["start"] for one in fields],
        [one["stop"] for one in fields],
    )
    hits.plan = plan
    if options.payload:
        hits.payloads = [_payload(row, options.payload, kinds) for row in rows]
    if options.grouping is not None:
        name = options.grouping.field
        hits.groups = [
            first_attribute_value(one["attributes"], name, kinds[name]) for one in fields
        ]
    return hits


def _payload(
    row: RankedRow, payload: frozenset[PayloadField], kinds: Mapping[str, str]
) -> HitPayload:
    fields = row.fields
    return HitPayload(
        fields["title"] if PayloadField.TITLE in payload else None,
        fields["passage"] if PayloadField.TEXT in payload else None,
        parse_attributes(fields["attributes"], kinds)
        if PayloadField.ATTRIBUTES in payload
        else None,
        np.array(fields["vector"], np.float32) if PayloadField.VECTOR in payload else None,
    )
