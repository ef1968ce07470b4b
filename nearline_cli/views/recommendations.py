"""A recommended list: a table for people, a JSON object for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import shorten

from nearline import contract as c
from nearline.v1 import admin_pb2
from nearline_cli.terminal import output
from nearline_cli.views.collection_view import collection_record
from nearline_cli.views.hits import (
    hit_record,
    ignored_records,
    print_ignored,
    reply_summary,
    served_by_record,
)


def print_recommendations(reply: c.RecommendReply, seconds: float, *, short: bool = False) -> None:
    """Prints a list, its reasons if there are any, and a line about the reply; short cuts texts."""

    def cut(text: str, most: int) -> str:
        cut_text = shorten(text.replace(", because:", " + "), most, placeholder="…")
        return cut_text if short else text

    explained = any(one.reasons for one in reply.recommendations)
    output.print_table(
        ("#", "score", "id", "title", *(("why",) if explained else ())),
        [
            (
                *(place, one.hit.score, one.hit.id, cut(one.hit.title or "", 24)),
                *((cut(", ".join(one.reasons), 34),) if explained else ()),
            )
            for place, one in enumerate(reply.recommendations, 1)
        ],
    )
    print_ignored(reply.ignored_ids)
    for line in reply.story:
        output.console().print(line)
    if reply.why_not is not None:
        why = reply.why_not
        output.console().print(f"{why.id}: {why.cause.value}: {why.message}")
    output.console().print(f"policy {reply.policy} · {reply_summary(reply.info, seconds)}")


def print_serving(
    reply: c.RecommendReply, collection: str, status: admin_pb2.GetServingStatusResponse
) -> None:
    """Prints which snapshot, live changes, models and trial a list comes from: a line each."""
    (found,) = (collection_record(o) for o in status.collections if o.collection == collection)
    made = datetime.strptime(reply.info.snapshot_id[:16], "%Y%m%dT%H%M%S%z")
    age = output.format_age((datetime.now(UTC) - made).total_seconds())
    trial = f"the {reply.info.arm.value} of a trial" if reply.info.arm else "no trial runs"
    lines = [f"snapshot: {age} old, {found['documents']:,} documents; {trial}"]
    if isinstance(live := found["live"], dict):
        lines.append(f"live: {live['rows']:,} chunks changed since, {live['behind']} to follow")
    if isinstance(models := found["training"], dict):
        newest = output.format_age(models["newest_s"]) or "0 s"
        known = f"{models['trained']:,} interactions, the newest {newest} ago"
        lines.append(
            f"models: {known if models['trained'] else 'none yet'}; {models['recorded']:,} were "
            f"recorded; next training: {models['next'] or 'not due'}"
        )
    for line in lines:
        output.console().print(line)


def recommendation_record(reply: c.RecommendReply, seconds: float) -> dict[str, object]:
    """Returns a list as a JSON object; times are in milliseconds."""
    why = reply.why_not
    return {
        "recommendations": [
            {
                **hit_record(recommendation.hit),
                "reasons": list(recommendation.reasons),
                "propensity": recommendation.propensity,
            }
            for recommendation in reply.recommendations
        ],
        "ignored_ids": ignored_records(reply.ignored_ids),
        "why_not": None
        if why is None
        else {"id": why.id, "cause": why.cause.value, "rank": why.rank, "message": why.message},
        "story": list(reply.story),
        "policy": reply.policy,
        "list_id": reply.info.list_id,
        "epoch": reply.info.epoch,
        "snapshot": reply.info.snapshot_id,
        "served_by": served_by_record(reply.info),
        "client_ms": output.to_milliseconds(seconds),
        "total_ms": output.to_milliseconds(reply.info.total_s),
    }
