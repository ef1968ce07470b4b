"""What a build tells people of what it learned from interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearline_cli.terminal import output

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult


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
