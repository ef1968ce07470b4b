"""Summary of a build, as printed when it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nearline.counts import counted
from nearline.store.snapshot import Store
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from index_builder.options.index_selection import IndexChoice
    from index_builder.pipeline.build_result import BuildResult
    from nearline.v1 import release_pb2


def print_build(
    result: BuildResult, store: str, *, as_json: bool, more: Mapping[str, object] = {}
) -> None:
    """Prints the results of a build, and the next steps.

    Args:
        result: Result of the build.
        store: The store, as the user named it.
        as_json: Whether to print them as a JSON object, with the fields of `more`.
    Raises:
        GateFailed: The release gate refuses the snapshot.
    """
    from index_builder.releases.build_gate import check_promoted

    if as_json:
        output.print_json({**result.record(), **more})
    else:
        _show_choice(result)
        _show_summary(result, store)
    check_promoted(result, Store.open(store))


def show_learning_summary(result: BuildResult) -> None:
    """Prints what the build learned from interactions, if anything."""
    card: Any = result.behaviour
    if card is None:
        return
    lines = [
        f"behaviour   {counted(card['interactions'], 'interaction')} of "
        f"{counted(card['users'], 'user')} with {counted(card['items'], 'item')}"
    ]
    if card["inherited"]:
        lines.append(
            f"            learned by {card['inherited']}; to learn again use --interactions or "
            "--learn"
        )
    places = {"file": "from the file", "recorded": "recorded", "kept": "learned before"}
    sources = [f"{card[name]:,} {place}" for name, place in places.items() if card[name]]
    if len(sources) > 1 or card["kept"]:
        lines.append(f"            {', '.join(sources)}")
    for kind, blend in card["blend"].items():
        ndcg = card["validation_ndcg"][kind]
        how = "not chosen" if ndcg is None else f"NDCG {ndcg:.4f} on validation"
        lines.append(f"{kind:<10}  {blend} ({how})")
    for kind, debias in card["debias"].items():
        if debias:
            lines.append(f"{kind:<10}  {debias}")
    lines += [f"left out    {count:,} of {reason}" for reason, count in card["left_out"].items()]
    lines += [f"note        {note}" for note in card["notes"]]
    output.console().print("\n".join(lines))


def _show_choice(result: BuildResult) -> None:
    """Prints the indexes on the frontier, if the build tried several."""
    if result.choice is not None:
        output.print_table(("index", "recall@10", "one query", "memory"), index_rows(result.choice))


def index_rows(choice: IndexChoice) -> list[tuple[str, str, str, str]]:
    """Returns the frontier as rows of index, recall, time and memory; marks the chosen one.

    Indexes with recall below 0.9 and below that of the chosen one are only in the report.
    """
    from index_builder.options.index_selection import frontier

    least, best, rows = min(0.9, choice.chosen.recall), frontier(choice.trials), []
    for trial in choice.trials:
        if trial == choice.chosen or (trial in best and trial.recall >= least):
            one = trial.candidate
            # A space after each comma lets a narrow table break the line.
            name = one.factory.replace(",", ", ")
            name += f", ef {one.ef_search}" if one.ef_search else ""
            name += f", nprobe {one.nprobe}" if one.nprobe else ""
            name += " (chosen)" if trial == choice.chosen else ""
            time, memory = f"{trial.latency_us:,.0f} µs", f"{trial.bytes / (1 << 20):,.1f} MiB"
            rows.append((name, f"{trial.recall:.4f}", time, memory))
    return rows


def _show_summary(result: BuildResult, store: str) -> None:
    lines = [
        f"snapshot    {result.snapshot_id}",
        f"documents   {result.documents:,} in {counted(result.chunks, 'chunk')}",
        f"index       {result.index_factory}, {result.dim} dimensions",
        *_device_lines(result),
        f"recall@10   {result.recall_at_10:.4f} against an exact scan of the same vectors",
        *_hybrid_lines(result),
        *_reranker_lines(result),
        *_answer_lines(result),
        *_merged_lines(result),
        *([f"models      {', '.join(result.models)}"] if result.models else []),
        f"size        {output.format_bytes(result.bytes)}",
        f"time        {sum(result.seconds.values()):.1f} s",
    ]
    if result.resumed:
        lines.append(f"resumed     {counted(result.resumed, 'chunk')} embedded by an earlier run")
    if result.truncated:
        lines.append(
            f"cut short   {counted(result.truncated, 'chunk')} longer than the model reads; a "
            "smaller --chunk-tokens avoids that"
        )
    if result.bad_rows:
        lines.append(f"left out    {counted(result.bad_rows, 'malformed row')}, for example:")
        lines += [f"              {output.escaped(str(row))}" for row in result.bad_row_sample]
    for one in result.lists:
        lines += [f"lists       {one};", f"            {one.remedy}"]
    lines.append(f"report      {os.path.relpath(result.folder / 'golden' / 'report.json')}")
    if result.gate is not None:
        lines.append(f"gate        {_gate_outcome(result.gate)}: {result.gate.report}")
    if result.epoch is None and result.gate is not None:
        lines.append("not served: refused by the release gate")
    elif result.epoch is None:
        lines.append("not served: --no-promote")
    else:
        lines.append(f"served as   {result.collection}, epoch {result.epoch}")
        default = result.collection == options.DEFAULT_COLLECTION
        where = "" if default else f" --collection {result.collection}"
        lines += ["", f"Next: nearline up --store {store}"]
        lines.append(f"      nearline search 'your question'{where}")
        if result.behaviour is not None:
            lines.append(f"      nearline recommend --user ID{where}")
    output.console().print("\n".join(lines))


def _device_lines(result: BuildResult) -> list[str]:
    if result.device == "cpu" and not result.device_notes:
        return []
    return [f"device      {result.device}", *(f"note        {one}" for one in result.device_notes)]


def _gate_outcome(gate: release_pb2.GateVerdict) -> str:
    if gate.passed:
        return "passed"
    forced = f", forced: {gate.forced_because}" if gate.forced_because else ""
    return f"{', '.join(gate.failed)} failed{forced}"


def _hybrid_lines(result: BuildResult) -> list[str]:
    if result.dense_weight is None:
        return []
    tuned = result.tuned_ndcg_at_10
    origin = "the default" if tuned is None else f"tuned: nDCG@10 {tuned:.4f} on its queries"
    return [
        f"words       {result.words:,}",
        f"hybrid      vectors weigh {result.dense_weight:.2f}, {origin}",
    ]


def _reranker_lines(result: BuildResult) -> list[str]:
    card = result.reranker
    if card is None:
        return []
    about = f"nDCG@10 of {card.held_out_queries:,} held-out queries is {card.search_ndcg_at_10:.4f}"
    if not card.weight:
        return [f"reranker    left out: {about} at best without it"]
    return [
        f"reranker    {about} without it, {card.reranked_ndcg_at_10:.4f} with it; trained on "
        f"{card.queries:,}"
    ]


def _answer_lines(result: BuildResult) -> list[str]:
    if result.answers is None:
        return []
    card = result.answers
    return [
        f"answers     calibrated on {card.questions:,} questions, {card.answerable:,} of them "
        f"answerable: answers {card.coverage:.0%}, {card.risk:.0%} of these without evidence",
    ]


def _merged_lines(result: BuildResult) -> list[str]:
    merged = result.merged
    if merged is None:
        return []
    counts = {
        "live changes": merged.changes,
        "deleted": merged.deleted,
        "expired": merged.expired,
        "corpus rows replaced by later changes": merged.outdated,
        "vectors reused": merged.reused,
    }
    changes = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    lines = [f"merged      {changes or 'nothing new since the previous snapshot'}"]
    if merged.outdated:
        lines.append(
            "              (if the corpus is newer than its files, set its time: --as-of TIME)"
        )
    return lines + [f"note        {note}" for note in merged.notes]
