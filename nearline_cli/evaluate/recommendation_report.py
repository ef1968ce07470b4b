"""HTML report of `nearline eval recommend`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from index_builder.reports.html import cell_text, figures, page, table

if TYPE_CHECKING:
    from index_builder.behaviour.model_evaluation import Evaluation

_WIDTH, _HEIGHT = 300, 16
_AGAIN = "Items that a user already had may be recommended again."
_SPLITS = {
    "last-n": "The last {} interactions of each user are held out; models learn from the earlier "
    "ones.",
    "loo": "The last interaction of each user is held out; models learn from the earlier ones.",
    "first-n": "The first {} interactions of each user in the file are held out.",
    "time": "Models learn from the earliest interactions, a share of {} of them, and are tested on "
    "all later ones. Items that are new by then are left out of the test.",
    "cold-users": "Models do not learn from a random share of {} of the users. The last ten "
    "interactions of each, at most half, are held out; the others are sent with the request.",
    "cold-items": "All interactions with a random share of {} of the items are held out. These "
    "items are ranked by their texts, for the users who interacted with one of them.",
}


def render_recommendation_report(
    name: str,
    evaluation: Evaluation,
    rows: Sequence[Mapping[str, object]],
    about: Mapping[str, object],
    k: int,
) -> str:
    """Returns the page.

    Args:
        name: Name of the data set.
        evaluation: The evaluation behind the figures.
        rows: Result of `result_rows`.
        about: Figures common to all rows: split, left_out, and models_left_out and
            items_without_text if there are any.
        k: Length of a list.
    """
    *_, ours = rows
    recommendable = int(evaluation.task.candidates.sum())
    parts = [
        f"<h1>Recommendations from {escape(name)}</h1>",
        f"<p>{escape(describe_split(str(about['split'])))} "
        f"{_AGAIN if about.get('repeats') else ''}</p>",
        figures(
            [
                (cell_text(ours[f"ndcg@{k}"]), f"NDCG@{k} of {ours['model']}"),
                (cell_text(ours[f"recall@{k}"]), f"recall@{k} of {ours['model']}"),
                (f"{len(evaluation.task.users):,}", "users tested"),
                (f"{recommendable:,}", "items to choose from"),
                (f"{about['interactions']:,}", "interactions"),
            ]
        ),
        f"<p>Every list has {k} items chosen from all items. The line across a bar is the 95% "
        "interval over users.</p>",
        *(part for figure in ("ndcg", "recall") for part in _bars(f"{figure}@{k}", rows)),
        "<h2>All figures</h2>",
        _with_head(rows),
        *_chosen(evaluation, ours, k),
        "<h2>Left out</h2>",
        table(_left_out(about)),
    ]
    return page(f"{name}: recommendations", parts)


def describe_split(split: str) -> str:
    """Describes what a split holds out, see `index_builder.interactions.splits.split`."""
    name, _, argument = split.partition(":")
    return _SPLITS[name].format(argument)


def _bars(figure: str, rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    most = max(float(str(row[f"{figure}_high"])) for row in rows) or 1.0
    yield f"<h2>{escape(figure)}</h2>"
    body = []
    for row in rows:
        low, mean, high = (float(str(row[figure + end])) for end in ("_low", "", "_high"))
        left, middle, right = (value / most * _WIDTH for value in (low, mean, high))
        interval = f"{low:.4f} to {high:.4f}"
        body.append(
            f"<tr><td>{escape(str(row['model']))}</td>"
            f'<td style="width: 45%"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{mean:.4f}, {interval}"><rect x="0" y="2" width="{middle:.1f}" '
            f'height="{_HEIGHT - 4}"/><line x1="{left:.1f}" y1="{_HEIGHT // 2}" '
            f'x2="{right:.1f}" y2="{_HEIGHT // 2}" style="stroke: var(--ink); stroke-width: 2"/>'
            f"</svg></td><td>{mean:.4f}</td><td>{interval}</td></tr>"
        )
    yield f"<table>{''.join(body)}</table>"


def _with_head(rows: Sequence[Mapping[str, object]]) -> str:
    """Returns a table of figures with a column per model."""
    shown = (name for name in rows[0] if name not in ("model", "settings"))
    body = ([name, *(cell_text(row[name]) for row in rows)] for name in shown)
    return table(body, ("", *(str(row["model"]) for row in rows)))


def _chosen(evaluation: Evaluation, ours: Mapping[str, object], k: int) -> Iterator[str]:
    yield "<h2>Settings</h2>"
    yield f"<p>{escape(str(ours['model']))}: {escape(str(ours['settings']))}</p>"
    if evaluation.choice is None:
        yield (
            "<p>Share of the squared scores of known items that what they say explains, by "
            "regularisation of the map, in five folds; 0 is the mean of all items.</p>"
        )
        yield table((f"{key:g}", f"{share:.4f}") for key, share in evaluation.content_fit.items())
        return
    alone = evaluation.choice.alone
    yield (
        f"<p>NDCG@{k} on the validation split, {evaluation.choice.validation:.4f} for the blend; "
        "each alone:</p>"
    )
    best_first = sorted(alone, key=lambda name: -alone[name])
    yield table((name, f"{alone[name]:.4f}") for name in best_first)


def _left_out(about: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    left_out = about["left_out"]
    assert isinstance(left_out, Mapping)
    for reason, count in left_out.items():
        yield f"Interactions: {reason}", f"{count:,}"
    if not left_out:
        yield "Interactions", "none"
    if "models_left_out" in about:
        yield "Models, which cannot know the items held out", str(about["models_left_out"])
        yield "Items of which the corpus says nothing", f"{about['items_without_text']:,}"
