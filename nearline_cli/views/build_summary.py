"""What a build tells people when it is done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult
    from nearline.v1 import release_pb2


def show_build_summary(result: BuildResult, store: str) -> None:
    """Prints what came out, and what is next.

    Args:
        result: Of the build.
        store: As the user named it.
    """
    _show_choice(result)
    _show_summary(result, store)


def show_learning_summary(result: BuildResult) -> None:
    """Prints what was learned, where anything was."""
    told: Any = result.behaviour
    if told is None:
        return
    lines = [
        f"behaviour   {told['interactions']:,} interactions of {told['users']:,} users with "
        f"{told['items']:,} items"
    ]
    if told["inherited"]:
        lines.append(
            f"            learned by {told['inherited']}; to learn again: --interactions or --learn"
        )
    places = {"file": "of the file", "recorded": "recorded", "kept": "learned from before"}
    taken = [f"{told[name]:,} {place}" for name, place in places.items() if told[name]]
    if len(taken) > 1 or told["kept"]:
        lines.append(f"            {', '.join(taken)}")
    for kind, blend in told["blend"].items():
        ndcg = told["validation_ndcg"][kind]
        how = "not chosen" if ndcg is None else f"NDCG {ndcg:.4f} on validation"
        lines.append(f"{kind:<10}  {blend} ({how})")
    lines += [f"left out    {count:,} of {reason}" for reason, count in told["left_out"].items()]
    lines += [f"note        {note}" for note in told["notes"]]
    output.console().print("\n".join(lines), markup=False)


def _show_choice(result: BuildResult) -> None:
    """Shows the indexes that no other beat, where the build tried several."""
    from index_builder.reports.frontier_chart import table_rows

    if result.choice is not None:
        # Further down nobody looks; the report has them all.
        least = min(0.9, result.choice.chosen.recall)
        rows = table_rows(result.choice.record(), least)
        output.print_table(("index", "recall@10", "one query", "memory"), rows)


def _show_summary(result: BuildResult, store: str) -> None:
    lines = [
        f"snapshot    {result.snapshot_id}",
        f"documents   {result.documents:,} in {result.chunks:,} chunks",
        f"index       {result.index_factory}, {result.dim} numbers a vector",
        f"recall@10   {result.recall_at_10:.4f} against an exact scan of the same vectors",
        *_hybrid_lines(result),
        *_answer_lines(result),
        *_merged_lines(result),
        *([f"models      {', '.join(result.models)}"] if result.models else []),
        f"size        {output.format_bytes(result.bytes)}",
        f"time        {sum(result.seconds.values()):.1f} s",
    ]
    if result.resumed:
        lines.append(f"resumed     {result.resumed:,} chunks were embedded by an earlier run")
    if result.truncated:
        lines.append(
            f"cut short   {result.truncated:,} chunks are longer than the model reads; a smaller "
            "--chunk-tokens avoids that"
        )
    if result.bad_rows:
        lines.append(f"left out    {result.bad_rows:,} malformed rows, for example:")
        lines += [f"              {row}" for row in result.bad_row_sample]
    lines.append(f"report      {os.path.relpath(result.folder / 'golden' / 'report.html')}")
    if result.gate is not None:
        page = result.gate.report.removesuffix(".json") + ".html"
        lines.append(f"gate        {_gate_told(result.gate)}: {page}")
    if result.epoch is None and result.gate is not None:
        lines.append("not served: the release gate refuses it")
    elif result.epoch is None:
        lines.append("not served: the alias was left alone (--no-promote)")
    else:
        lines.append(f"served as   {result.collection}, epoch {result.epoch}")
        default = result.collection == options.DEFAULT_COLLECTION
        where = "" if default else f" --collection {result.collection}"
        lines += ["", f"Next: nearline up --store {store}"]
        lines.append(f"      nearline search 'your question'{where}")
        if result.behaviour is not None:
            lines.append(f"      nearline recommend --user ID{where}")
    output.console().print("\n".join(lines), markup=False)


def _gate_told(gate: release_pb2.GateVerdict) -> str:
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


def _answer_lines(result: BuildResult) -> list[str]:
    if result.answers is None:
        return []
    told = result.answers
    return [
        f"answers     calibrated on {told.questions:,} questions, {told.answerable:,} of them "
        f"answerable: answers {told.coverage:.0%}, {told.risk:.0%} of those without evidence",
    ]


def _merged_lines(result: BuildResult) -> list[str]:
    merged = result.merged
    if merged is None:
        return []
    counts = {
        "live changes": merged.changes,
        "deleted": merged.deleted,
        "past their time": merged.expired,
        "rows of the corpus that something later replaced": merged.outdated,
        "vectors taken over": merged.reused,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    lines = [f"merged      {told or 'nothing new since the snapshot before'}"]
    if merged.outdated:
        lines.append(
            "              (where the corpus is newer than its files' times, say so: --as-of TIME)"
        )
    return lines + [f"note        {note}" for note in merged.notes]
