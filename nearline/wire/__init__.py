"""Pure converters between contract records and protobuf messages, used at both ends of the wire."""

from nearline.wire.embeddings import embed_response, embedder_info, embeddings, info_response
from nearline.wire.enums import (
    LANES,
    ROLES,
    lane_from_proto,
    payload_from_proto,
    payload_to_proto,
    role_from_proto,
)
from nearline.wire.queries import (
    options_from_proto,
    options_to_proto,
    query_from_proto,
    query_to_proto,
)
from nearline.wire.replies import (
    batch_reply,
    batch_response,
    item_from_proto,
    item_to_proto,
    items_reply,
    items_response,
    search_reply,
    search_response,
)
from nearline.wire.values import (
    attributes_from_proto,
    duration,
    seconds,
    set_duration,
    value_from_proto,
    value_to_proto,
)

__all__ = [
    "LANES",
    "ROLES",
    "attributes_from_proto",
    "batch_reply",
    "batch_response",
    "duration",
    "embed_response",
    "embedder_info",
    "embeddings",
    "info_response",
    "item_from_proto",
    "item_to_proto",
    "items_reply",
    "items_response",
    "lane_from_proto",
    "options_from_proto",
    "options_to_proto",
    "payload_from_proto",
    "payload_to_proto",
    "query_from_proto",
    "query_to_proto",
    "role_from_proto",
    "search_reply",
    "search_response",
    "seconds",
    "set_duration",
    "value_from_proto",
    "value_to_proto",
]
