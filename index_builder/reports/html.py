"""Building blocks of self-contained HTML reports."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #e3e6ec; --bar: #3b6fd8;
  --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3240;
  --bar: #7aa2f7; --paper: #12161e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 46rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1rem; margin: 2.25rem 0 .5rem; }
p { margin: .25rem 0; color: var(--soft); }
code { font-size: .92em; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.5rem 0; }
.figures b { display: block; font-size: 1.6rem; font-weight: 600; }
.figures span { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; font-weight: normal; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); } td:last-child:not(:first-child) { text-align: right; }
svg { width: 100%; height: auto; } svg rect { fill: var(--bar); }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg line { stroke: var(--line); } svg line.target { stroke: var(--soft); stroke-dasharray: 4 4; }
svg polyline { fill: none; stroke: var(--bar); opacity: .5; } svg circle { fill: var(--bar); }
svg circle.beaten { fill: var(--line); } svg circle.chosen { stroke: var(--ink); stroke-width: 3; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Returns a complete page: title is plain text, parts are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def figures(named: Iterable[tuple[str, str]]) -> str:
    """Returns a row of large figures; each is a value and its name."""
    cells = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in named
    )
    return f'<div class="figures">{cells}</div>'


def table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """Returns a table of text cells; head optionally names the columns."""
    lines = [_cells("th", names)] if (names := tuple(head)) else []
    return f"<table>{''.join([*lines, *(_cells('td', row) for row in rows)])}</table>"


def cell_text(value: object) -> str:
    """Returns the text of a table cell: empty for None, four decimals for a float."""
    if value is None:
        return ""
    return f"{value:,.4f}" if isinstance(value, float) else str(value)


def _cells(tag: str, texts: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"
