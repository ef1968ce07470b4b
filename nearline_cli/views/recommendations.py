"""A recommended list: a table for people, a JSON object for programs."""

from __future__ import annotations

from nearline import contract as c
from nearline_cli.terminal import output
from nearline_cli.views.hits import (
    hit_record,
    ignored_records,
    print_ignored,
    reply_summary,
    served_by_record,
)


def print_recommendations(reply: c.RecommendReply, seconds: float) -> None:
    """Prints a list, with its reasons if they were asked for, and one line about the reply."""
    explained = any(one.reasons for one in reply.recommendations)
    output.print_table(
        ("#", "score", "id", "title", *(("why",) if explained else ())),
        [
            (
                *(place, one.hit.score, one.hit.id, one.hit.title or ""),
                *((", ".join(one.reasons),) if explained else ()),
            )
            for place, one in enumerate(reply.recommendations, 1)
        ],
    )
    print_ignored(reply.ignored_ids)
    if reply.why_not is not None:
        why = reply.why_not
        output.console().print(f"{why.id}: {why.cause.value}: {why.message}")
    output.console().print(f"policy {reply.policy} · {reply_summary(reply.info, seconds)}")


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
        "policy": reply.policy,
        "list_id": reply.info.list_id,
        "epoch": reply.info.epoch,
        "snapshot": reply.info.snapshot_id,
        "served_by": served_by_record(reply.info),
        "client_ms": output.to_milliseconds(seconds),
        "total_ms": output.to_milliseconds(reply.info.total_s),
    }
