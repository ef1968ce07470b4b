"""Hits of a search: a table for people, a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from nearline.contract import Hit, IgnoredId, PlanStrategy, ReplyInfo, SearchReply
from nearline_cli.terminal import output

_SNIPPET_CHARACTERS = 96
_SEPARATOR = " — "


def print_hits(reply: SearchReply, seconds: float) -> None:
    """Prints a table of hits, and one line about the reply."""
    names = ["#", "score"]
    explained = [hit.explanation for hit in reply.hits if hit.explanation is not None]
    if explained:
        names += ["by vector", "by words"]
        if any(one.boosts for one in explained):
            names.append("boosts")
    if any(hit.group is not None for hit in reply.hits):
        names.append("group")
    names += ["id", "text"]
    if any(hit.reasons for hit in reply.hits):
        names.append("why")
    output.print_table(names, [_row(rank, hit, names) for rank, hit in enumerate(reply.hits, 1)])
    for plan in reply.results[0].plans:
        output.console().print(f"shard {plan.shard}: {plan.strategy.value}: {plan.reason}")
    print_ignored(reply.results[0].ignored_ids)
    output.console().print(reply_summary(reply.info, seconds))


def print_ignored(ignored_ids: Sequence[IgnoredId]) -> None:
    """Prints ignored ids to standard error."""
    for one in ignored_ids:
        output.print_note(f"ignored: {output.escaped(one.id)} ({one.reason.value})")


def _row(rank: int, hit: Hit, names: Sequence[str]) -> list[object]:
    scores = hit.explanation
    cells = {
        "#": rank,
        "score": hit.score,
        "by vector": _part(scores.dense_score, scores.dense_rank) if scores else "",
        "by words": _part(scores.lexical_score, scores.lexical_rank) if scores else "",
        "boosts": ", ".join(f"{one:.3f}" for one in scores.boosts) if scores else "",
        "group": "" if hit.group is None else str(hit.group),
        "id": hit.id,
        "text": _text_cell(hit),
        "why": ", ".join(hit.reasons),
    }
    return [cells[name] for name in names]


def _part(score: float | None, rank: int | None) -> str:
    if score is None:
        return "-"
    return f"{score:.3f}" if rank is None else f"{score:.3f} (#{rank})"


def reply_summary(info: ReplyInfo, seconds: float) -> str:
    """Returns one line: times, epoch, snapshot, coverage, and the reason for a degraded reply."""
    coverage = info.coverage
    parts = [
        f"{seconds * 1e3:.1f} ms (server {_ms(info.total_s)}: "
        f"embed {_ms(info.embed_s)}, search {_ms(info.search_s)})",
        f"epoch {info.epoch}",
        f"snapshot {info.snapshot_id}",
        f"shards {coverage.shards_answered}/{coverage.shards_total}",
    ]
    if info.cost is not None:
        where = "GPUs" if info.cost.gpu else "the CPU"
        parts.append(
            f"exact: {info.cost.comparisons:,} comparisons, {_ms(info.cost.compute_s)} of {where}"
        )
    if info.served_by.reason:
        parts.append(f"{info.served_by.source.value}: {info.served_by.reason}")
    return " · ".join(parts)


def reply_record(reply: SearchReply, seconds: float) -> dict[str, object]:
    """Returns a reply as a JSON object; times are in milliseconds."""
    info = reply.info
    return {
        "hits": [hit_record(hit) for hit in reply.hits],
        "ignored_ids": ignored_records(reply.results[0].ignored_ids),
        "plans": [
            {
                "shard": plan.shard,
                "strategy": plan.strategy.value,
                "matches": None if plan.strategy is PlanStrategy.BACKEND else plan.matches,
                "chunks": plan.chunks,
                "ef_search": plan.ef_search,
                "reason": plan.reason,
            }
            for plan in reply.results[0].plans
        ],
        "list_id": info.list_id,
        "epoch": info.epoch,
        "snapshot": info.snapshot_id,
        "fingerprint": info.fingerprint,
        "coverage": {
            "answered": info.coverage.shards_answered,
            "total": info.coverage.shards_total,
            "missing": list(info.coverage.missing_shards),
        },
        "served_by": served_by_record(info),
        "client_ms": output.to_milliseconds(seconds),
        "total_ms": output.to_milliseconds(info.total_s),
        "embed_ms": output.to_milliseconds(info.embed_s),
        "search_ms": output.to_milliseconds(info.search_s),
        "cost": cost_record(info),
    }


def cost_record(info: ReplyInfo) -> dict[str, object] | None:
    """Returns what an exact search took as a JSON object; None for other searches."""
    if info.cost is None:
        return None
    return {
        "comparisons": info.cost.comparisons,
        "compute_ms": output.to_milliseconds(info.cost.compute_s),
        "gpu": info.cost.gpu,
    }


def ignored_records(ignored_ids: Sequence[IgnoredId]) -> list[dict[str, object]]:
    """Returns ignored ids as JSON objects."""
    return [{"id": one.id, "reason": one.reason.value} for one in ignored_ids]


def served_by_record(info: ReplyInfo) -> dict[str, object]:
    """Returns the origin of a reply as a JSON object."""
    return output.json_record(asdict(info.served_by))


def hit_record(hit: Hit) -> dict[str, object]:
    """Returns a hit as a JSON object."""
    return {
        "id": hit.id,
        "score": hit.score,
        "chunk": hit.chunk,
        "start": hit.start,
        "end": hit.end,
        "title": hit.title,
        "text": hit.text,
        "attributes": dict(hit.attributes or {}),
        "group": hit.group,
        "explanation": None if hit.explanation is None else asdict(hit.explanation),
        "highlights": None if hit.highlights is None else asdict(hit.highlights),
        "reasons": list(hit.reasons),
    }


def _text_cell(hit: Hit) -> object:
    """Returns the title and the beginning of the text, or the passage with its words marked."""
    if hit.highlights is None:
        return output.one_line(_title_and_text(hit), _SNIPPET_CHARACTERS)
    before = f"{hit.title}{_SEPARATOR}" if hit.title else ""
    spans = list(hit.highlights.title) if hit.title else []
    passage = hit.highlights.passage
    if passage is None:
        return output.MarkedText(hit.title or "", spans)
    spans += [(len(before) + start, len(before) + end) for start, end in passage.spans]
    return output.MarkedText(before + passage.text, spans)


def _title_and_text(hit: Hit) -> str:
    return _SEPARATOR.join(part for part in (hit.title, hit.text) if part)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"
