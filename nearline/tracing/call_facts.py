"""Facts about a call from its messages, without personal data: never texts, ids or values."""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from nearline.tracing.spans import Scalar

_MOST_PARTS: Final = 4
# Names are sent by callers: anything else might be a text.
_NAME: Final = re.compile(r"[\w.-]{1,128}")
_SHORT: Final = {"equals": "eq", "all": "and", "any": "or"}
# Fields of requests and of their options that are numbers or choices.
_NUMBERS: Final = ("k", "page_size", "limit", "shard")


def call_facts(request: Any, reply: Any = None) -> dict[str, Scalar]:
    """Returns facts about a call.

    Args:
        request: Its request; anything but a message has no facts.
        reply: Its reply, or of a stream the one with the most facts. Optional.
    Returns: collection, k, queries, mode, filter (its shape), snapshot, epoch, shards_answered,
        shards_total and served_by, those that the messages have; and NAME_ms of each timing.
    """
    facts: dict[str, Scalar] = {}
    if isinstance(request, Message):
        _add_request(facts, request)
    if isinstance(reply, Message):
        _add_reply(facts, reply)
    return facts


def has_info(reply: Any) -> bool:
    """Returns whether a reply of a stream says from which snapshot the answer came."""
    if not isinstance(reply, Message):
        return False
    part = _chosen_part(reply)
    return part.DESCRIPTOR.fields_by_name.get("info") is not None


def _add_request(facts: dict[str, Scalar], request: Message) -> None:
    fields = request.DESCRIPTOR.fields_by_name
    for field, noun in (("collection", "collection"), ("snapshot_id", "snapshot")):
        if field in fields and (name := getattr(request, field)):
            facts[noun] = name if _NAME.fullmatch(name) else "(not a name)"
    for name, noun in (("queries", "queries"), ("texts", "texts"), ("ids", "items")):
        if name in fields and (count := len(getattr(request, name))):
            facts[noun] = count
    options = getattr(request, "options", None)
    for part in (request, options):
        if not isinstance(part, Message):
            continue
        named = part.DESCRIPTOR.fields_by_name
        for name in _NUMBERS:
            if name in named and (number := getattr(part, name)):
                facts[name] = number
        if "mode" in named and named["mode"].enum_type is not None:
            chosen = named["mode"].enum_type.values_by_number.get(part.mode)  # type: ignore[attr-defined]
            if part.mode and chosen is not None:  # type: ignore[attr-defined]
                facts["mode"] = chosen.name.rpartition("MODE_")[2].lower()
        if "filter" in named and part.HasField("filter"):
            facts["filter"] = filter_shape(part.filter)  # type: ignore[attr-defined]


def _add_reply(facts: dict[str, Scalar], reply: Message) -> None:
    part = _chosen_part(reply)
    info = part
    if "info" in part.DESCRIPTOR.fields_by_name:
        info = part.info  # type: ignore[attr-defined]
    fields = info.DESCRIPTOR.fields_by_name
    if "snapshot_id" in fields and "epoch" in fields:
        facts["snapshot"] = info.snapshot_id  # type: ignore[attr-defined]
        facts["epoch"] = info.epoch  # type: ignore[attr-defined]
    if "coverage" in fields:
        facts["shards_answered"] = info.coverage.shards_answered  # type: ignore[attr-defined]
        facts["shards_total"] = info.coverage.shards_total  # type: ignore[attr-defined]
    if "served_by" in fields and (rung := info.served_by.rung):  # type: ignore[attr-defined]
        facts["served_by"] = rung
    if "timings" in fields:
        for field, value in info.timings.ListFields():  # type: ignore[attr-defined]
            if isinstance(value, Duration):
                facts[f"{field.name}_ms"] = round(value.ToNanoseconds() / 1e6, 3)


def _chosen_part(reply: Message) -> Message:
    """Returns the part of an event of a stream that is set; any other reply itself."""
    oneofs = reply.DESCRIPTOR.oneofs
    if len(oneofs) == 1 and (name := reply.WhichOneof(oneofs[0].name)):
        part = getattr(reply, name)
        if isinstance(part, Message):
            return part
    return reply


def filter_shape(condition: Message, *, deep: bool = True) -> str:
    """Returns the shape of a filter in a message, as `monitoring.filter_shape` does of a record."""
    name = condition.WhichOneof("condition") or "none"
    shown = _SHORT.get(name, name)
    if not deep or name not in ("all", "any", "not"):
        return shown
    found: Any = getattr(condition, name)
    parts = [found] if name == "not" else found.filters
    shapes = sorted({filter_shape(part, deep=False) for part in parts})
    return f"{shown}(many)" if len(shapes) > _MOST_PARTS else f"{shown}({','.join(shapes)})"
