"""Renders a replay as one self-contained HTML page, by segment and with the worst pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import zip_longest

from index_builder.releases.replay import Replay, ReplayPair
from index_builder.reports.html import cell_text, figures, page, table
from index_builder.reports.plots import histogram


def render(
    replay: Replay,
    rows: Sequence[Mapping[str, object]],
    worst: Sequence[ReplayPair],
    titles: Mapping[str, str],
) -> str:
    """Returns the page.

    Args:
        replay: The replay.
        rows: Of `breakdown.breakdown_rows`.
        worst: Requests to show side by side.
        titles: Titles of items by id; items without one show their id.
    """
    total = rows[0]
    name = replay.first.served.name
    parts = [
        f"<h1>{escape(name)}: two snapshots, the same requests</h1>",
        f"<p>First <code>{escape(replay.first.id)}</code>, second "
        f"<code>{escape(replay.second.id)}</code>.</p>",
        f"<p>{escape(describe_source(replay))}</p>",
        figures(
            [
                (cell_text(total["requests"]), "requests"),
                (cell_text(total[f"overlap@{replay.k}"]), f"of the {replay.k} best in common"),
                (cell_text(total["unchanged"]), "of the lists unchanged"),
                (cell_text(total["p99_ratio"]), "p99 latency, second to first"),
            ]
        ),
        histogram([pair.overlap for pair in replay.pairs], "share in common", low=0.0, high=1.0),
        "<h2>By segment</h2>",
        _table_with_header(rows),
        "<h2>Largest differences</h2>",
        *(part for pair in worst for part in _side_by_side(pair, replay.k, titles)),
    ]
    if not worst:
        parts.append("<p>There are no differences.</p>")
    if replay.left_out:
        parts.append("<h2>Requests that could not be sent</h2>")
        parts.append(table((why, f"{count:,}") for why, count in replay.left_out.items()))
    return page(f"{name}: replay", parts)


def describe_source(replay: Replay) -> str:
    """Returns where the requests come from, as text."""
    if replay.source == "recorded":
        return "These requests were recorded by routers."
    return "No requests were recorded; these are the golden queries of the first snapshot."


def _table_with_header(rows: Sequence[Mapping[str, object]]) -> str:
    head = (name.replace("_", " ") for name in rows[0])
    body = (map(cell_text, row.values()) for row in rows)
    return f'<div style="overflow-x: auto">{table(body, head)}</div>'


def _side_by_side(pair: ReplayPair, k: int, titles: Mapping[str, str]) -> Iterator[str]:
    title = f"{pair.probe.kind}: {pair.probe.describe()}"
    yield f"<h2>{escape(title)}</h2>"
    if pair.refused:
        yield f"<p>The second snapshot refuses it: {escape(pair.refused)}</p>"
    common = set(pair.first.ids[:k]) & set(pair.second.ids[:k])
    cells = [
        tuple(_item_cell(one, common, titles) for one in places)
        for places in zip_longest(pair.first.ids[:k], pair.second.ids[:k], fillvalue="")
    ]
    yield "<table><tr><th>first</th><th>second</th></tr>"
    yield "".join(f"<tr><td>{one}</td><td>{other}</td></tr>" for one, other in cells)
    yield "</table>"


def _item_cell(item_id: str, common: set[str], titles: Mapping[str, str]) -> str:
    shown = escape(titles.get(item_id) or item_id)
    return shown if item_id in common or not item_id else f"<b>{shown}</b>"
